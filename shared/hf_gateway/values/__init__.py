"""Values that travel between the parts, and what may be shown of them."""
