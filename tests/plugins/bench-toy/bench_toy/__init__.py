"""A stranger's package: everything comes in through entry points."""
