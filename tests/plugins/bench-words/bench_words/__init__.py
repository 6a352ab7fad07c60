"""A stranger's package of texts: everything comes in through entry points."""
