"""Alembic's folder: `env.py` runs what is in `versions/`, one module a revision, upon a connection that `store.upgrade` gives."""
