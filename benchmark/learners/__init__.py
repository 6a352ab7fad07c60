"""Whole learners as services: training loops that methods share. Import from the modules; an author overrides parts."""
