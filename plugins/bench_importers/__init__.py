"""Results of other suites, one module each; the core loads them like anyone else's."""
