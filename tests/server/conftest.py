"""A server in a thread, with a chain that needs no model."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.gateway_server import RunningServer, gateway_server


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """A server with one chain, `docs`, of hash vectors."""
    with gateway_server() as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    """An HTTP client of that server."""
    with server.client() as made:
        yield made
