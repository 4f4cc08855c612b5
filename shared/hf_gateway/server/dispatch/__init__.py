"""The way of a request through the server, whatever its surface: the route table, callers, chains, problems, streams."""
