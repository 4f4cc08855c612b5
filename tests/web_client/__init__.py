"""Tests of the TypeScript client against a real server."""
