"""Images from texts."""
