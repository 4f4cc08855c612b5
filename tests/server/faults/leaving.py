"""Clients that leave at random moments, and what a server and its database hold afterwards."""

import contextlib
import json
import random
import socket
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx

from tests.server.faults.load import KINDS
from tests.support.gateway_server import START_S
from tests.support.late import COLLECTED

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.store import open_ledger


def leave(url: str, kind: tuple[str, Any], seed: random.Random, key: str | None = None) -> None:
    """Send a request, or a part of it, and leave at a random moment: after some bytes of the answer, or some milliseconds."""
    host, _, port = url.partition("//")[2].partition(":")
    content = json.dumps(kind[1])
    credential = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {kind[0]} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{credential}"
    whole = f"{head}content-length: {len(content)}\r\n\r\n{content}".encode()
    moment = seed.random()
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=START_S) as connection:
        if moment < 0.1:
            connection.sendall(whole[: seed.randrange(len(whole))])
            return
        connection.sendall(whole)
        if moment < 0.5:
            threading.Event().wait(seed.random() * 0.03)
            return
        connection.settimeout(0.05)
        for _ in range(seed.randrange(1, 6)):
            connection.recv(seed.randrange(1, 400))


def reserved(url: str) -> tuple[Decimal, int]:
    """Return what budgets have reserved by the database, and the number of its leases of more than nothing."""
    with open_ledger(url) as engine, engine.connect() as connection:
        total = connection.execute(sa.text("SELECT coalesce(sum(reserved_usd), 0) FROM budget_spending")).scalar_one()
        held = connection.execute(sa.text("SELECT count(*) FROM budget_leases WHERE reserved_usd <> 0")).scalar_one()
    return Decimal(str(total)), int(held)


def in_flight(client: httpx.Client, key: str) -> int:
    """Return how many requests are under way, without this one."""
    answer = client.get("/admin/in-flight", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    return len([each for each in answer.json()["requests"] if each["route"] != "/admin/in-flight"])


@contextlib.contextmanager
def leaving(url: str, times: int, number: int, key: str | None = None) -> Iterator[None]:
    """Let clients leave in the background, eight at a time; leaving the block waits for all of them."""

    def work(part: int) -> None:
        seed = random.Random(f"{number}/{part}")
        for turn in range(part, times, 8):
            leave(url, KINDS[turn % len(KINDS)], seed, key)

    threads = [threading.Thread(target=work, args=(part,), daemon=True) for part in range(8)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(10 * START_S)
        assert not thread.is_alive()
