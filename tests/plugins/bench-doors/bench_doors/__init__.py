"""A stranger's: a backbone, a track, a preset, a family with a scenario, a metric, an executor, a plot, a protocol."""
