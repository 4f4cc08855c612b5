"""Keys: where they are found, which target needs one, and the keyring of the operating system."""
