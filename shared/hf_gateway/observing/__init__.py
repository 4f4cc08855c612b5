"""Watchers of requests."""
