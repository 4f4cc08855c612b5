"""The whole of hf-gateway.toml: its JSON schema, what is wrong with it, and what is in force."""
