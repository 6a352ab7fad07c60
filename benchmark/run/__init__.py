"""Everything that executes one run: plan, preparation, the loop, evaluation, checkpoints, the record."""
