"""Modules of a plugin author who had a bad day."""
