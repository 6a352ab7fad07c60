"""Which arithmetic ran."""

ENGINE = 1
