"""Scores for documents by a query."""
