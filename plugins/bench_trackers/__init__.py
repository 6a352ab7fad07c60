"""Experiment trackers, one module each; a library is imported when a run is told to its tracker."""
