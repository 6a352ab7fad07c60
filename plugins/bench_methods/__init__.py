"""The methods that come with adaptbench, one file each; the core loads them like anyone else's."""
