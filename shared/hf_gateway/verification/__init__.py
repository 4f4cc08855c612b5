"""Measures and compares the targets of a chain."""
