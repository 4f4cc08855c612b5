"""Load on a server: callers in threads, who count what they were answered."""

import threading
import time
from collections import Counter
from typing import Any

import httpx

from tests.server.test_openai_chat import ASK
from tests.support.gateway_server import START_S

EMBEDDING = ("/v1/embeddings", {"model": "docs", "input": "one text"})
WHOLE = ("/v1/chat/completions", {"model": "chat", "messages": ASK, "max_tokens": 16})
STREAM = ("/v1/chat/completions", {**WHOLE[1], "stream": True})
NDJSON = ("/api/chat", {"model": "chat", "messages": ASK})
KINDS = (EMBEDDING, WHOLE, STREAM, NDJSON)
"""Requests of each kind: a path and a body."""
ENDS = ("[DONE]", '"done":true', "error", '"usage"', '"results"')
"""One of these is in the body of each answer that has ended as its surface says."""


def wait_until(condition: Any, what: str, seconds: float = START_S) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        threading.Event().wait(0.02)


def ask(client: httpx.Client, kind: tuple[str, Any], key: str | None = None) -> str:
    """Send a request; returns its status, or what is wrong with the answer, or what became of the connection.

    Wrong are an answer without an end, and one of 500 and more that does not say what to do.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = client.post(kind[0], json=kind[1], headers=headers)
    except httpx.ConnectError:
        return "refused"
    except httpx.HTTPError as error:
        return type(error).__name__
    if answer.status_code == 200 and not any(end in answer.text for end in ENDS):
        return "200 without an end"
    if answer.status_code >= 500 and "try again" not in answer.text:
        return f"{answer.status_code}: {answer.text[:300]}"
    return str(answer.status_code)


class Load:
    """Callers that send requests of all kinds in turn until they are told to stop."""

    def __init__(self, urls: list[str], callers: int, key: str | None = None, kinds: Any = KINDS) -> None:
        """urls: of the servers, which the callers share out."""
        self.seen: Counter[str] = Counter()
        self._urls, self._key, self._kinds = urls, key, kinds
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call, args=(number,), daemon=True) for number in range(callers)]

    def _call(self, number: int) -> None:
        with httpx.Client(base_url=self._urls[number % len(self._urls)], trust_env=False, timeout=START_S) as client:
            while not self._stop.is_set():
                found = ask(client, self._kinds[number % len(self._kinds)], self._key)
                with self._lock:
                    self.seen[found] += 1
                if found == "refused":
                    return
                number += 1

    def count(self, status: str = "200") -> int:
        """Return how many requests had a status so far."""
        with self._lock:
            return self.seen[status]

    def total(self) -> int:
        """Return how many requests were answered, whatever with."""
        with self._lock:
            return sum(self.seen.values())

    def more(self, number: int) -> None:
        """Wait until so many further requests were answered."""
        least = self.count() + number
        wait_until(lambda: self.count() >= least, f"no {number} more answers: {self.seen}")

    def join(self) -> None:
        """Wait for callers that end by themselves, since nobody listens any more."""
        for thread in self._threads:
            thread.join(START_S)
            assert not thread.is_alive()

    def __enter__(self) -> "Load":
        """Start."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, after the requests under way."""
        self._stop.set()
        self.join()
