"""The HTTP server: the chains of `hf-gateway.toml` for programs in other processes and languages."""
