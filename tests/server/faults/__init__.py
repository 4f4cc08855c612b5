"""Faults while the server is under load: processes, databases, targets and clients that go away."""
