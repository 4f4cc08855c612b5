"""The fault campaign's schedules, drawn from a seed, and the servers in memory that they are played against.

A `Schedule` is plain data, so that one that fails can be cut down and printed; `campaign.py` plays it.
"""

import asyncio
import dataclasses
import json
import random
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from hf_gateway import errors
from hf_gateway.runtime.effects import Send
from hf_gateway.values.http import HttpResponse
from tests.servers import normalized, unit_vectors

MODEL, OTHER_MODEL = "campaign/model", "campaign/other"
DIM, HASH_DIM = 16, 32
QUERY_PROMPT = "query: "
WAYS = ("pickle", "copy", "deepcopy", "langchain pickle", "llamaindex pickle", "langchain model_copy")
"""How a process comes to its copy of another one's Gateway."""
HASH = -1
"""The place of the target `hash` in a process's list; others are places of servers."""

WORDS = tuple(
    f"{word} {tail}" for word in ("river", "stone", "light", "paper") for tail in ("of old", "and sky", "new")
)

Rows = list[list[float]]


# Spaces: what the servers' models make of a text, and the oracle that tells them apart again.


def _right(text: str) -> list[float]:
    return unit_vectors([text], DIM)[0]


def _other(text: str) -> list[float]:
    return unit_vectors([f"another model: {text}"], DIM)[0]


def _mixed(text: str) -> list[float]:
    return normalized([one + 0.6 * other for one, other in zip(_right(text), _other(text), strict=True)])


SPACES: dict[str, Callable[[str], list[float]]] = {
    "right": _right,
    "other model": _other,
    "other dimension": lambda text: unit_vectors([text], 8)[0],
    "unnormalised": lambda text: [value * (2 + len(text) % 4) for value in _right(text)],
    "cls": _mixed,
    "no query prompt": lambda text: _right(text.removeprefix(QUERY_PROMPT)),
    "quantised": lambda text: normalized([round(value * 8) / 8 for value in _right(text)]),
}
SHUFFLED, HASHED = "shuffled", "hash"
KINDS = (*SPACES, SHUFFLED)


@lru_cache(maxsize=1 << 15)
def truth(space: str, text: str) -> tuple[float, ...]:
    """Return what a space makes of a text as it is sent, its prompt included."""
    return tuple(array("f", SPACES[space](text)))  # as exact as an answer


def answer_of(kind: str, texts: Sequence[str]) -> Rows:
    """Return what a server of this kind answers."""
    if kind == SHUFFLED:
        return [list(truth("right", text)) for text in (*texts[1:], texts[0])]
    return [list(truth(kind, text)) for text in texts]


@lru_cache(maxsize=4)
def _anybodys(prompt: str) -> frozenset[tuple[float, ...]]:
    return frozenset(truth("right", prompt + word) for word in WORDS)


def spaces_of(vector: Sequence[float], text: str, prompt: str) -> frozenset[str]:
    """Name the spaces in which this text, in this role, has this vector; `shuffled` for that of another text."""
    if len(vector) == HASH_DIM:
        return frozenset({HASHED})
    row = tuple(vector)
    found = frozenset(space for space in SPACES if truth(space, prompt + text) == row)
    return found | {SHUFFLED} if row in _anybodys(prompt) else found


# Schedules.


@dataclass(frozen=True)
class Server:
    """kind: what it serves; becomes: what after `swap_at` requests; flaps: requests between going down and coming up.

    names: the model it is declared to be, None for the chain's; pooling: declared for it; files: counts as the model's own
    files, run in this process; max_texts: how many the target takes at once; replica: what another server behind the same
    address serves, taken by chance for each request; tells: whether a header says which of the two answered.
    """

    kind: str = "right"
    becomes: str | None = None
    swap_at: int = 0
    flaps: int = 0
    names: str | None = None
    pooling: str | None = None
    files: bool = False
    max_texts: int | None = None
    replica: str | None = None
    tells: bool = False


@dataclass(frozen=True)
class Process:
    """A Gateway of its own on one of two HF_GATEWAY_HOMEs.

    cache: the schedule's shared cache, LlamaIndex's own, or None; at_once: batches under way, and whether queries share a
    request: then threads and clocks have a say, and a schedule may go another way the next time; home: which one; lock: the
    number of the index that it fills; copy_of: the process whose Gateway it has a copy of, made in one of the WAYS.
    """

    order: tuple[int, ...]
    separate: bool = False
    canary_every: int = 1
    truncate: bool = False
    cache: str | None = None
    max_retries: int = 1
    at_once: int = 1
    home: int = 0
    lock: int | None = None
    copy_of: int | None = None
    way: str = "pickle"


@dataclass(frozen=True)
class Call:
    """One call of a process, through one of the three doors."""

    process: int
    door: str
    role: str
    texts: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """Calls that are made at once (async) or one after the other.

    faults: (server, what fails, for how many requests, after how many); restarts: processes that begin anew before it;
    wipes: indexes that a person deletes before it, some seconds earlier.
    """

    calls: tuple[Call, ...]
    together: bool = False
    faults: tuple[tuple[int, str, int, int], ...] = ()
    advance: float = 0.0
    restarts: tuple[int, ...] = ()
    wipes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """All there is to know to play it again."""

    seed: int
    servers: tuple[Server, ...]
    processes: tuple[Process, ...]
    steps: tuple[Step, ...]
    prompts: bool = False

    def __str__(self) -> str:
        """Describe it in as many lines as it has parts."""
        lines = [f"seed {self.seed}, prompts {self.prompts}"]
        for name, items in (("server", self.servers), ("process", self.processes), ("step", self.steps)):
            lines += [f"  {name} {place}: {_brief(each)}" for place, each in enumerate(items)]
        return "\n".join(lines)


def _brief(item: Any) -> str:
    """Show the fields that are not what they are without being said."""
    said = []
    for each in dataclasses.fields(item):
        value = getattr(item, each.name)
        if value != each.default:
            shown = [_brief(one) for one in value] if each.name == "calls" else value
            said.append(f"{each.name}={shown}")
    return f"{type(item).__name__}({', '.join(said)})"


def drawn(seed: int) -> Schedule:
    """Draw a schedule."""
    dice = random.Random(seed)
    servers = tuple(_server(dice) for _ in range(dice.randint(1, 5)))
    processes: list[Process] = []
    for _ in range(dice.randint(1, 4)):
        processes.append(_process(dice, servers))
        while len(processes) < 5 and dice.random() < 0.25:
            processes.append(_copy(dice, processes))
    steps = tuple(_step(dice, servers, len(processes)) for _ in range(dice.randint(3, 7)))
    return Schedule(seed, servers, tuple(processes), steps, prompts=dice.random() < 0.5)


def _server(dice: random.Random) -> Server:
    kind = "right" if dice.random() < 0.45 else dice.choice(KINDS)
    server = Server(
        kind,
        flaps=dice.choice((0, 0, 0, 0, 2, 5)),
        pooling="mean" if dice.random() < 0.15 else None,
        names=OTHER_MODEL if kind == "other model" and dice.random() < 0.3 else None,
        files=kind == "right" and dice.random() < 0.06,
        max_texts=dice.choice((None, None, None, 3, 5)),
    )
    if not server.files and dice.random() < 0.15:
        return dataclasses.replace(server, replica=dice.choice(KINDS), tells=dice.random() < 0.4)
    if not server.files and dice.random() < 0.3:
        return dataclasses.replace(
            server, becomes=dice.choice((*KINDS, "no query prompt", SHUFFLED)), swap_at=dice.randint(1, 30)
        )
    return server


def _process(dice: random.Random, servers: Sequence[Server]) -> Process:
    order = dice.sample(range(len(servers)), dice.randint(1, len(servers)))
    separate = dice.random() < 0.45
    if separate and dice.random() < 0.6:
        order.insert(dice.randint(1 if dice.random() < 0.8 else 0, len(order)), HASH)
    if not separate and dice.random() < 0.95:
        order = [place for place in order if servers[place].names == servers[order[0]].names]
    return Process(
        tuple(order),
        separate,
        dice.choice((1, 1, 1, 1, 2, 3, 5, 0)),
        truncate=dice.random() < 0.2,
        cache=dice.choice((None, None, None, "ours", "llamaindex")),
        max_retries=dice.choice((0, 1, 1)),
        at_once=dice.choice((1, 1, 16)),
        home=dice.choice((0, 0, 0, 1)),
        lock=dice.choice((None, None, 0, 0, 1)),
    )


def _copy(dice: random.Random, processes: Sequence[Process]) -> Process:
    """Draw a copy of one of the processes; one on another machine has only the index to share with its original."""
    place = dice.randrange(len(processes))
    original = processes[place]
    home = original.home if original.lock is None else dice.choice((0, 1))
    return dataclasses.replace(original, copy_of=place, way=dice.choice(WAYS), home=home)


def _step(dice: random.Random, servers: Sequence[Server], processes: int) -> Step:
    together = dice.random() < 0.5
    faults = [
        (place, dice.choice(tuple(FAULTS)), dice.choice((1, 2, 99, 99)), dice.choice((0, 0, 1, 2)))
        for place in range(len(servers))
        if dice.random() < 0.25
    ]
    calls = tuple(_call(dice, processes) for _ in range(dice.choice((1, 1, 2, 3)) if together else 1))
    return Step(
        calls,
        together,
        tuple(faults),
        dice.choice((0.0, 0.0, 1.0, 40.0)),
        restarts=tuple(number for number in range(processes) if dice.random() < 0.06),
        wipes=(0,) if dice.random() < 0.04 else (),
    )


def _call(dice: random.Random, processes: int) -> Call:
    role = dice.choice(("document", "query"))
    count = 1 if role == "query" else dice.choice((1, 2, 4, 7))
    texts = tuple(dice.sample(range(len(WORDS)), count))
    return Call(dice.randrange(processes), dice.choice(("core", "langchain", "llamaindex")), role, texts)


# The servers, in memory.


def _status(status: int, **headers: str) -> Callable[[str], HttpResponse]:
    def respond(target: str) -> HttpResponse:
        return HttpResponse(status, headers, b'{"error": "no luck"}')

    return respond


def _raises(kind: type[errors.GatewayError]) -> Callable[[str], HttpResponse]:
    def respond(target: str) -> HttpResponse:
        raise kind("no luck", target=target)

    return respond


def _body(data: bytes) -> Callable[[str], HttpResponse]:
    def respond(target: str) -> HttpResponse:
        return HttpResponse(200, {}, data)

    return respond


FAULTS: dict[str, Callable[[str], HttpResponse]] = {
    **{str(status): _status(status) for status in (401, 402, 403, 404, 408, 422, 500, 502, 503)},
    "429": _status(429, **{"retry-after": "1"}),
    "refused": _raises(errors.ConnectFailed),
    "timeout": _raises(errors.AttemptTimedOut),
    "bad JSON": _body(b'{"data": [{"embe'),
    "HTML": _body(b"<html><title>Welcome</title></html>"),
    "no rows": _body(b'{"data": []}'),
    "NaN": _body(b'{"data": [{"index": 0, "embedding": [NaN, 1.0]}]}'),
}


class World:
    """A transport whose servers are those of a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self.servers = schedule.servers
        self.requests = [0] * len(self.servers)
        self.faults: dict[int, list[Any]] = {}
        self.dice = random.Random(schedule.seed)

    def kind(self, place: int) -> str:
        """What this server serves by now."""
        server = self.servers[place]
        if server.replica is not None and self.dice.random() < 0.5:
            return server.replica
        return server.becomes if server.becomes and self.swapped(place) else server.kind

    def swapped(self, place: int) -> bool:
        """Whether the model behind its URL is another one by now."""
        server = self.servers[place]
        return server.becomes is not None and self.requests[place] > server.swap_at

    def send(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        place = int(urlsplit(send.request.url).hostname.split(".")[0][1:])
        server = self.servers[place]
        if send.request.body is None:
            return HttpResponse(404, {}, b"")  # these servers do not say what they serve
        self.requests[place] += 1
        fault = self.faults.get(place)
        if fault and fault[2] > 0:
            fault[2] -= 1
        elif fault and fault[1] > 0:
            fault[1] -= 1
            return FAULTS[fault[0]](target)
        if server.flaps and self.requests[place] // server.flaps % 2:
            return FAULTS["500"](target)
        kind = self.kind(place)
        rows = answer_of(kind, json.loads(send.request.body)["input"])
        data = [{"index": number, "embedding": row} for number, row in enumerate(rows)]
        headers = {"x-served-by": kind} if server.tells else {}
        return HttpResponse(200, headers, json.dumps({"data": data, "usage": {"prompt_tokens": len(rows)}}).encode())

    async def asend(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        answer = self.send(send, timeout=timeout, connect_timeout=connect_timeout, target=target)
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        return answer

    def prepare(self) -> None:
        """Nothing to read."""

    def close(self) -> None:
        """Nothing to close."""


class Inline(ThreadPoolExecutor):
    """Runs what it is given at once, so that schedules are the same each time."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(function(*args, **named))
        except BaseException as error:
            done.set_exception(error)
        return done


class Shelf:
    """A cache in memory, shared by the processes of a schedule."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.kept.get(name) for name in keys]

    def set_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        self.kept.update(items)

    def close(self) -> None:
        """Nothing to close."""
