"""Clients that leave: at random moments, and what a server and its database hold afterwards; and how soon the target notices.

python -m tests.server.faults.leaving [CLIENTS]     # prints the figures; with 1,000 clients it takes minutes
"""

import contextlib
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from tests.server.faults.load import KINDS, NDJSON, STREAM, WHOLE, ask, wait_until
from tests.servers.loopback import HeldStream, Normal, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, START_S, ServerProcess, chat_chain
from tests.support.late import COLLECTED, run_late_imports
from tests.support.redis_servers import redis_server
from tests.support.server_keys import ALL, make_key

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.budget import Budget
    from hf_gateway.ledger.budgets import set_budget
    from hf_gateway.ledger.models import set_entry
    from hf_gateway.ledger.prices import Price, PriceEntry
    from hf_gateway.ledger.store import open_ledger

CHAT = "/v1/chat/completions"
IDLE = 3
"""Connections that may stay open for later requests."""
NOTHING = (Decimal(0), 0)
"""What budgets hold afterwards."""
CLIENTS = 1000
LONG_S = 1800.0


def request_of(url: str, kind: tuple[str, Any], key: str | None = None) -> bytes:
    """Return the bytes of a request.

    Args:
        url: of the server.
        kind: a path and a body.
        key: the caller's.
    """
    content = json.dumps(kind[1])
    credential = f"authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {kind[0]} HTTP/1.1\r\nhost: {url.partition('//')[2]}\r\ncontent-type: application/json\r\n{credential}"
    )
    return f"{head}content-length: {len(content)}\r\n\r\n{content}".encode()


def leave(url: str, kind: tuple[str, Any], seed: random.Random, key: str | None = None) -> None:
    """Send a request, or a part of it, and leave at a random moment: after some bytes of the answer, or some milliseconds."""
    host, _, port = url.partition("//")[2].partition(":")
    whole = request_of(url, kind, key)
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


def disconnects(folder: Path, upstream: FakeOpenAI, times: int, *, shared: bool) -> tuple[Decimal, int]:
    """Let clients leave; returns what budgets hold afterwards, in US dollars and in leases, which is nothing.

    Args:
        folder: an empty folder.
        upstream: the target of chat.
        times: how many clients.
        shared: limits in a Redis and the ledger in PostgreSQL, rather than in the process and in a file.
    """
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(a_ledger("postgresql" if shared else "sqlite", folder))
        redis = stack.enter_context(redis_server(folder)) if shared else None
        key = make_key(database, scopes=ALL, parallel=64)
        with open_ledger(database) as engine:
            set_budget(engine, Budget("*", "day", Decimal(1000)))
            for task in ("feature-extraction", "text-generation"):
                set_entry(engine, PriceEntry("*", task, f"openai:{upstream.url}", Price(Decimal(1), Decimal(1))))
        own = f'[server]\ndatabase = "{database}"\n' + (f'redis = "{redis.url}"\n' if redis else "")
        process = stack.enter_context(ServerProcess(HASH_CHAIN + chat_chain(upstream.url) + own))
        client = stack.enter_context(process.client())
        # Answers that wait until their client leaves, at their beginning and after some events, and in between such as end.
        upstream.fail(*(Normal() if turn % 4 == 3 else stall_stream(turn % 4) for turn in range(times)), path=CHAT)
        with leaving(process.url, times, 1, key):
            pass
        wait_until(lambda: in_flight(client, key) == 0, "requests are still under way")
        upstream.recover()
        wait_until(lambda: upstream.open_connections <= IDLE, f"{upstream.open_connections} connections are left")
        answers = [ask(client, kind, key) for kind in KINDS]
        assert answers == ["200"] * len(KINDS)
        wait_until(lambda: in_flight(client, key) == 0, "requests are still under way")
        if redis is not None:
            wait_until(lambda: redis.names("hf-gateway:limits:leases/*").count(b"\r\n") <= 1, "slots are still taken")
        process.end()
        wait_until(lambda: upstream.open_connections == 0, f"{upstream.open_connections} connections are left")
        assert "Traceback" not in process.log, process.log
        return reserved(database)


def delays(upstream: FakeOpenAI, times: int) -> list[float]:
    """Let clients leave one after the other; returns the seconds from each client's end to the target's seeing it, in order.

    They leave whole answers, streams before their first token, and streams after some.

    Args:
        upstream: the target of chat.
        times: how many clients.
    """
    kinds = [(kind, after) for kind in (WHOLE, STREAM, NDJSON) for after in (0, 2)]
    found = []
    with ServerProcess(chat_chain(upstream.url)) as process:
        host, _, port = process.url.partition("//")[2].partition(":")
        for turn in range(times):
            kind, after = kinds[turn % len(kinds)]
            stall: HeldStream = stall_stream(after)
            upstream.always(stall)
            with socket.create_connection((host, int(port)), timeout=START_S) as connection:
                connection.sendall(request_of(process.url, kind))
                assert stall.reached.wait(START_S)
                began = time.perf_counter()
            assert stall.disconnected.wait(START_S), "the target still works for a client that has left"
            found.append(time.perf_counter() - began)
        upstream.recover()
    return sorted(found)


def shown(found: Sequence[float]) -> str:
    """Return the median, the 99th percentile and the longest of some seconds, in words."""
    worst = found[-max(1, len(found) // 100)]
    figures = (statistics.median(found), worst, found[-1])
    return "median {:.1f} ms, p99 {:.1f} ms, longest {:.1f} ms".format(*(1000 * each for each in figures))


def main(clients: int = CLIENTS) -> int:
    """Let many clients leave, and print what was found; returns the exit status.

    Args:
        clients: for each way of keeping counts.
    """
    well = True
    for kept in ("one process", "PostgreSQL and Redis"):
        with tempfile.TemporaryDirectory() as name, FakeOpenAI(models=None) as upstream, contextlib.chdir(name):
            os.environ |= {"HF_GATEWAY_HOME": f"{name}/home", "HF_HOME": f"{name}/hub", "HF_GATEWAY_CHECK_SPACE": "0"}
            held = disconnects(Path(name), upstream, clients, shared=kept != "one process")
        sys.stdout.write(
            f"{clients:,} clients left, {kept}: {float(held[0]):g} USD and {held[1]} leases are held, 0 connections\n"
        )
        well = well and held == NOTHING
    with tempfile.TemporaryDirectory() as name, FakeOpenAI(models=None) as upstream, contextlib.chdir(name):
        found = delays(upstream, max(100, clients // 5))
    sys.stdout.write(f"{len(found):,} clients left, until the target saw it: {shown(found)}\n")
    return 0 if well else 1


if __name__ == "__main__":
    for each in ("tests.support.databases", "tests.support.server_keys", "tests.server.faults.leaving"):
        run_late_imports(each)
    from tests.server.faults import leaving as loaded

    sys.exit(loaded.main(*map(int, sys.argv[1:])))
