"""Stores of vectors that a job writes into instead of a folder: one protocol, one file a store."""
