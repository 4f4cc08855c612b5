"""The tasks that a gateway can be built for, one folder each, and what is the same for all of them."""
