"""HTTP itself: what holds for every exchange, and the libraries that carry one out."""
