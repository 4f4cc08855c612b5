"""Wire formats: one pure module a protocol, from values to bytes and back. No sockets, no clock, no environment."""
