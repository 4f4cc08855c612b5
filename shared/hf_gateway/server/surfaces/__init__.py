"""The surfaces: each answers the clients of one API, in its own form, from the same chains."""
