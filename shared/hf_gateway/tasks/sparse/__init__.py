"""Sparse vectors of texts: weights of words."""
