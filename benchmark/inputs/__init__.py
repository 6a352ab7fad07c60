"""From raw samples to the input of a model, one module for each kind; `benchmark.inputs.pipeline.make` chooses."""
