"""Clients that leave at random moments: nothing is held for them afterwards, neither here nor at the target."""

from pathlib import Path

import pytest

from tests.server.faults.leaving import NOTHING, delays, disconnects, shown
from tests.servers.openai import FakeOpenAI

SMALL = 200
"""Clients that leave, for each way of keeping counts; `make soak` lets 1,000 leave."""
BOUND_S = 0.1
"""How soon a target sees that a client has left."""


@pytest.mark.parametrize("shared", [False, True], ids=["one process", "PostgreSQL and Redis"])
def test_clients_that_leave_at_random_moments_leave_nothing(shared: bool, primary: FakeOpenAI, tmp_path: Path) -> None:
    assert disconnects(tmp_path, primary, SMALL, shared=shared) == NOTHING


def test_a_target_sees_at_once_that_a_client_has_left(primary: FakeOpenAI) -> None:
    found = delays(primary, 60)
    assert found[len(found) // 2] < 10 * BOUND_S, shown(found)
