"""The figures that come with adaptbench; the core loads them like anyone else's."""
