"""Searches for the values of options: what is searched, how points are chosen, what was found. Nothing here runs.

`benchmark.run.tuning` does the runs, ``bench tune`` is the command.
"""
