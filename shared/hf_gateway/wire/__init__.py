"""Wire formats: one pure module per protocol, from values to bytes and back. No sockets, no clock, no environment."""
