"""Observations of requests, for ledgers, metrics and traces."""
