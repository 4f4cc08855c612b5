"""Values that travel between the layers, and what may be shown of them."""
