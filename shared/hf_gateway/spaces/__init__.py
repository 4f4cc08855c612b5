"""Vector spaces: what a chain promises about its vectors, and how that promise travels."""
