"""The tracks, and further small records, that come with adaptbench; the core loads them like anyone else's."""
