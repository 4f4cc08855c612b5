"""What to do next, and how long it may take: no I/O, no clock."""
