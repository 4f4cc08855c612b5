"""What a chain takes as settings, and what a file may ask for."""
