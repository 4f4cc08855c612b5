"""Measurements against the libraries that people use now: `python -m benchmarks --list`."""
