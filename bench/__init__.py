"""Measurements beside other programs, on one machine, in one run: `python -m bench --help`."""
