"""Performs effects: the drivers, the background loop, and limits of concurrency."""
