"""The one place where the version is written, and the public address of the documentation."""

__version__ = "0.1.0"
DOCUMENTATION_URL = ""
"""Without a trailing slash. While it is empty no address is printed."""
