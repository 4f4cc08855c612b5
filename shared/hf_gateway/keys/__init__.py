"""Keys: policy, sources, the OS keyring."""
