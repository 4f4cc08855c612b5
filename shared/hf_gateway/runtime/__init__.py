"""Performs effects: the drivers, the background loop, concurrency."""
