"""HTTP: the rules of every exchange, and the libraries that perform one."""
