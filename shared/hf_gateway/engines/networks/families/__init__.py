"""Families of networks, one small pure module each."""
