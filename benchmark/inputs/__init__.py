"""From raw samples to what a model reads."""
