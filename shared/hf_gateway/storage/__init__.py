"""Files, SQLite databases and vector stores."""
