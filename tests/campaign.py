"""The fault campaign: random schedules of servers, failures, processes and calls, and an oracle that knows whose each vector is.

A `Schedule` is drawn from a seed and is plain data, so that one that fails can be cut down and printed. `run` plays it without
sockets, against a transport in memory, and judges every vector that came back: one index, one space, or an error was raised.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import random
import sys
import tempfile
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from llama_index.core.storage.kvstore import SimpleKVStore

from hf_gateway import Gateway, Target, VectorSpace, errors
from hf_gateway.backends.openai import OpenAIBackend
from hf_gateway.drive import Send
from hf_gateway.engines import sources
from hf_gateway.testing import ManualClock
from hf_gateway.wire.http import HttpResponse
from langchain_hf_gateway import HFGatewayEmbeddings
from llamaindex_hf_gateway import HFGatewayEmbedding
from tests.servers import normalized, unit_vectors

MODEL, OTHER_MODEL = "campaign/model", "campaign/other"
DIM, HASH_DIM = 16, 32
QUERY_PROMPT = "query: "
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
    files, run in this process; max_texts: how many the target takes at once.
    """

    kind: str = "right"
    becomes: str | None = None
    swap_at: int = 0
    flaps: int = 0
    names: str | None = None
    pooling: str | None = None
    files: bool = False
    max_texts: int | None = None


@dataclass(frozen=True)
class Process:
    """A Gateway of its own on the same HF_GATEWAY_HOME.

    cache: the schedule's shared cache, LlamaIndex's own, or None; at_once: batches under way, and whether queries share a
    request: then threads and clocks have a say, and a schedule may go another way the next time.
    """

    order: tuple[int, ...]
    separate: bool = False
    canary_every: int = 1
    truncate: bool = False
    cache: str | None = None
    max_retries: int = 1
    at_once: int = 1


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

    faults: (server, what fails, for how many requests, after how many).
    """

    calls: tuple[Call, ...]
    together: bool = False
    faults: tuple[tuple[int, str, int, int], ...] = ()
    advance: float = 0.0


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
    processes = tuple(_process(dice, servers) for _ in range(dice.randint(1, 4)))
    steps = tuple(_step(dice, servers, len(processes)) for _ in range(dice.randint(3, 7)))
    return Schedule(seed, servers, processes, steps, prompts=dice.random() < 0.5)


def _server(dice: random.Random) -> Server:
    kind = "right" if dice.random() < 0.45 else dice.choice(KINDS)
    server = Server(
        kind,
        flaps=dice.choice((0, 0, 0, 0, 2, 5)),
        pooling="mean" if dice.random() < 0.15 else None,
        names=OTHER_MODEL if kind == "other model" and dice.random() < 0.3 else None,
        files=kind == "right" and dice.random() < 0.06,
        max_texts=dice.choice((None, None, None, 3)),
    )
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
    )


def _step(dice: random.Random, servers: Sequence[Server], processes: int) -> Step:
    together = dice.random() < 0.5
    faults = [
        (place, dice.choice(tuple(FAULTS)), dice.choice((1, 2, 99, 99)), dice.choice((0, 0, 1, 2)))
        for place in range(len(servers))
        if dice.random() < 0.25
    ]
    calls = tuple(_call(dice, processes) for _ in range(dice.choice((1, 1, 2, 3)) if together else 1))
    return Step(calls, together, tuple(faults), dice.choice((0.0, 0.0, 1.0, 40.0)))


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
        rows = answer_of(self.kind(place), json.loads(send.request.body)["input"])
        data = [{"index": number, "embedding": row} for number, row in enumerate(rows)]
        return HttpResponse(200, {}, json.dumps({"data": data, "usage": {"prompt_tokens": len(rows)}}).encode())

    async def asend(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        answer = self.send(send, timeout=timeout, connect_timeout=connect_timeout, target=target)
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        return answer


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


# Playing and judging.


class Violation(AssertionError):
    """Vectors of two spaces in one index, and nobody said so."""

    def __init__(self, schedule: Schedule, what: str) -> None:
        super().__init__(f"{what}\n{schedule}")
        self.schedule = schedule
        self.what = what


@dataclass(frozen=True)
class Kept:
    """A vector that came back.

    spaces: whose it can be; own: what a swapped server may give this process until the next canary; leak: the same, and what
    others left in the cache it shares with them.
    """

    process: int
    call: int
    index: str
    text: str
    spaces: frozenset[str]
    own: frozenset[str]
    leak: frozenset[str]


@dataclass
class Counts:
    """What a campaign met.

    leaks: calls that got vectors of a model swapped since the last canary, by canary_every; again: such vectors read from a
    cache later on.
    """

    schedules: int = 0
    calls: int = 0
    requests: int = 0
    vectors: int = 0
    fallbacks: int = 0
    quarantines: int = 0
    takeovers: int = 0
    swaps: int = 0
    again: int = 0
    seconds: float = 0.0
    refusals: Counter[str] = field(default_factory=Counter)
    leaks: Counter[int] = field(default_factory=Counter)

    def __iadd__(self, other: "Counts") -> "Counts":
        for each in dataclasses.fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self

    def __str__(self) -> str:
        """Tell it in a few lines."""
        refused = ", ".join(f"{name} {count}" for name, count in self.refusals.most_common())
        bounded = sum(count for every, count in self.leaks.items() if every)
        return (
            f"fault campaign: {self.schedules} schedules, {self.calls} calls, {self.requests} requests, {self.vectors} vectors, "
            f"{self.fallbacks} fallbacks, {self.quarantines} quarantines in {self.seconds:.1f} s "
            f"({self.schedules / max(self.seconds, 1e-9):.0f} schedules/s)\n"
            f"  refused calls: {sum(self.refusals.values())} ({refused})\n"
            f"  schedules with a swapped model: {self.swaps}; calls that leaked before the next canary: {bounded}, with "
            f"canary_every=1: {self.leaks[1]}, with canaries off: {self.leaks[0]}; "
            f"vectors of theirs that a cache gave again: {self.again}\n"
            f"  fingerprints replaced by the model's own files: {self.takeovers}"
        )


class Run:
    """One schedule being played."""

    def __init__(
        self, schedule: Schedule, home: Path, loop: asyncio.AbstractEventLoop, takeovers: Callable[[], int]
    ) -> None:
        self.schedule = schedule
        self.home = home
        self.loop = loop
        self.takeovers = takeovers
        self.world = World(schedule)
        self.clock = ManualClock()
        self.shelf, self.store = Shelf(), SimpleKVStore()
        self.gateways: dict[int, Gateway | None] = {}
        self.doors: dict[tuple[int, str], Any] = {}
        self.kept: list[Kept] = []
        self.spoilt: dict[str | None, frozenset[str]] = defaultdict(frozenset)
        self.counts = Counts(schedules=1)

    def play(self) -> Counts:
        """Play it and judge. Raises Violation."""
        for step in self.schedule.steps:
            self.clock.advance(step.advance)
            self.world.faults = {place: [fault, count, after] for place, fault, count, after in step.faults}
            if step.together:
                self.loop.run_until_complete(self._together(step.calls))
            else:
                for call in step.calls:
                    self._alone(call)
        self.counts.requests = sum(self.world.requests)
        self.counts.swaps = any(map(self.world.swapped, range(len(self.schedule.servers))))
        self.counts.quarantines = sum(
            standing.state == "quarantined"
            for gateway in self.gateways.values()
            if gateway is not None
            for standing in gateway._guard._standings.values()
        )
        self.counts.takeovers = self.takeovers()
        self._judge()
        return self.counts

    def _gateway(self, number: int) -> Gateway | None:
        if number not in self.gateways:
            process = self.schedule.processes[number]
            prompts = {"query_prompt": QUERY_PROMPT, "document_prompt": ""} if self.schedule.prompts else {}
            try:
                gateway = Gateway(
                    MODEL,
                    [self._target(place) for place in process.order],
                    transport=self.world,
                    clock=self.clock,
                    check_space=True,
                    on_space_change="separate" if process.separate else "refuse",
                    canary_every=process.canary_every,
                    truncate=process.truncate,
                    max_retries=process.max_retries,
                    max_concurrency=process.at_once,
                    coalesce=0.002 if process.at_once > 1 else 0,
                    cache=self.shelf if process.cache == "ours" else None,
                    **prompts,
                )
            except errors.SpaceMismatch as error:
                self.counts.refusals[type(error).__name__] += 1
                self.gateways[number] = None
                return None
            gateway._chain.jitter = self.world.dice.uniform
            gateway.observe(self._observe)
            self.gateways[number] = gateway
        return self.gateways[number]

    def _target(self, place: int) -> Target:
        if place == HASH:
            return Target.of(f"hash:{HASH_DIM}")
        server = self.schedule.servers[place]
        return Target(
            "openai",
            model=server.names,
            url=f"http://t{place}{'.files' if server.files else ''}.localhost",
            options={"max_texts": server.max_texts} if server.max_texts else {},
            space=VectorSpace(server.names or MODEL, pooling=server.pooling) if server.pooling else None,
        )

    def _observe(self, result: Any) -> None:
        self.counts.fallbacks += any(attempt.outcome != "served" for attempt in result.attempts)

    def _door(self, call: Call, gateway: Gateway) -> Any:
        known = (call.process, call.door)
        if known not in self.doors:
            if call.door == "langchain":
                self.doors[known] = HFGatewayEmbeddings.from_gateway(gateway)
            else:
                cached = self.schedule.processes[call.process].cache == "llamaindex"
                settings = {"embeddings_cache": self.store} if cached else {}
                self.doors[known] = HFGatewayEmbedding.from_gateway(gateway, **settings)
        return self.doors[known]

    def _alone(self, call: Call) -> None:
        if (gateway := self._gateway(call.process)) is None:
            return
        texts = [WORDS[place] for place in call.texts]
        with self._noting(call, gateway, texts) as note:
            if call.door == "core":
                note(gateway.embed(texts, role=call.role).vectors.tolist())
                return
            door = self._door(call, gateway)
            if call.role == "query":
                query = door.embed_query if call.door == "langchain" else door.get_query_embedding
                note([query(texts[0])])
            else:
                many = door.embed_documents if call.door == "langchain" else door.get_text_embedding_batch
                note(many(texts))

    async def _together(self, calls: Sequence[Call]) -> None:
        for outcome in await asyncio.gather(*map(self._async, calls), return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _async(self, call: Call) -> None:
        if (gateway := self._gateway(call.process)) is None:
            return
        texts = [WORDS[place] for place in call.texts]
        with self._noting(call, gateway, texts) as note:
            if call.door == "core":
                note((await gateway.aembed(texts, role=call.role)).vectors.tolist())
                return
            door = self._door(call, gateway)
            if call.role == "query":
                query = door.aembed_query if call.door == "langchain" else door.aget_query_embedding
                note([await query(texts[0])])
            else:
                many = door.aembed_documents if call.door == "langchain" else door.aget_text_embedding_batch
                note(await many(texts))

    @contextlib.contextmanager
    def _noting(self, call: Call, gateway: Gateway, texts: list[str]) -> Iterator[Callable[[Rows], None]]:
        """Count a call, its refusal, and what it gives."""
        self.counts.calls += 1
        number = self.counts.calls
        process = self.schedule.processes[call.process]
        prompt = QUERY_PROMPT if self.schedule.prompts and call.role == "query" else ""

        def note(rows: Rows) -> None:
            if len(rows) != len(texts):
                raise Violation(self.schedule, f"{len(rows)} vectors for {len(texts)} texts")
            own = frozenset(
                self.world.servers[place].becomes
                for place in process.order
                if place != HASH and process.canary_every != 1 and self.world.swapped(place)
            )
            if process.cache:
                self.spoilt[process.cache] |= own
            leak = own | self.spoilt[process.cache]
            self.counts.vectors += len(rows)
            for text, row in zip(texts, rows, strict=True):
                found = spaces_of(row, text, prompt)
                self.kept.append(Kept(call.process, number, gateway.space.id, prompt + text, found, own, leak))

        try:
            yield note
        except errors.GatewayError as error:
            self.counts.refusals[type(error).__name__.split("_")[0]] += 1

    def _judge(self) -> None:
        allowed = {*SPACES, HASHED}
        leaked: list[Kept] = []
        for number in {each.process for each in self.kept}:
            leaked += self._strange(
                [each for each in self.kept if each.process == number], allowed, f"process {number}"
            )
        self._bound(leaked)
        if self.counts.takeovers:
            return  # said in the log: what earlier processes made is of another space than what later ones make
        for index in {each.index for each in self.kept}:
            self._strange([each for each in self.kept if each.index == index], allowed, f"index {index}")

    def _strange(self, kept: Sequence[Kept], allowed: set[str], where: str) -> list[Kept]:
        """Find the one space of these vectors; returns the leaks, which are of others. Raises Violation."""
        best: list[Kept] | None = None
        for space in sorted(allowed):
            strange = [each for each in kept if space not in each.spaces]
            if all(each.spaces & each.leak for each in strange) and (best is None or len(strange) < len(best)):
                best = strange
        if best is None:
            found = Counter(" or ".join(sorted(each.spaces)) or "none" for each in kept)
            raise Violation(self.schedule, f"{where} holds vectors of several spaces: {dict(found)}")
        return best

    def _bound(self, leaked: Sequence[Kept]) -> None:
        """Hold leaks to the window between two canaries. Raises Violation."""
        processes = self.schedule.processes
        calls: set[tuple[int, int]] = set()
        seen: set[Any] = set()
        for each in sorted(leaked, key=lambda each: not each.own):
            known = (processes[each.process].cache, each.text, each.spaces)
            if known[0] and known in seen:
                self.counts.again += 1
                continue
            seen.add(known)
            calls.add((each.process, each.call))
        fresh = Counter(process for process, _ in calls)
        windows: Counter[Any] = Counter()
        leaks: Counter[Any] = Counter()
        for number, process in enumerate(processes):
            self.counts.leaks[process.canary_every] += fresh[number]
            group = process.cache or number  # who reads a cache may seem to have leaked what another left there
            swapped = sum(place != HASH and self.world.swapped(place) for place in process.order)
            windows[group] += swapped * (process.canary_every - 1 if process.canary_every else 10**6)
            leaks[group] += fresh[number]
        for group, count in leaks.items():
            if count > windows[group]:
                raise Violation(self.schedule, f"{group}: {count} calls leaked, where a window has {windows[group]}")


class _Takeovers(logging.Handler):
    """Counts the warnings that the model's own files replaced a fingerprint."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "own files" in str(record.msg)


class Campaign:
    """Plays schedules. Use as a context manager: it sets what all of them share."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.counts = Counts()
        self._stack = contextlib.ExitStack()
        self._takeovers = _Takeovers()

    def __enter__(self) -> "Campaign":
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(Inline())
        self._stack.callback(self.loop.close)
        logger = logging.getLogger("hf_gateway")
        logger.addHandler(self._takeovers)
        self._stack.callback(logger.removeHandler, self._takeovers)
        for patch in (
            mock.patch.object(sources, "find", return_value=None),  # no files of this machine, and no look for them
            mock.patch.object(OpenAIBackend, "authoritative", property(lambda it: ".files" in it.target.url)),
            mock.patch.object(
                logging.getLogger("hf_gateway.gateway"), "disabled", True
            ),  # every fallback is told there
            mock.patch.dict(os.environ, {"HF_GATEWAY_HOME": str(self.home)}),
        ):
            self._stack.enter_context(patch)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def play(self, schedule: Schedule) -> Counts:
        """Play one in an empty home. Raises Violation."""
        self._takeovers.count = 0
        try:
            return Run(schedule, self.home, self.loop, lambda: self._takeovers.count).play()
        except Violation:
            raise
        except Exception as error:
            raise Violation(schedule, f"an error that is none of ours: {type(error).__name__}: {error}") from error
        finally:
            for path in self.home.glob("fingerprints/*"):
                path.unlink()

    def run(self, seeds: Sequence[int]) -> Counts:
        """Play many. Raises Violation, with the smallest schedule that still shows it."""
        started = time.perf_counter()
        for seed in seeds:
            try:
                self.counts += self.play(drawn(seed))
            except Violation as found:
                raise self.smallest(found) from found
        self.counts.seconds += time.perf_counter() - started
        return self.counts

    def smallest(self, found: Violation) -> Violation:
        """Leave parts of a schedule out for as long as the violation stays."""
        shrinking = True
        while shrinking:
            shrinking = False
            for smaller in _smaller(found.schedule):
                try:
                    self.play(smaller)
                except Violation as again:
                    found, shrinking = again, True
                    break
        return found


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    for place, step in enumerate(schedule.steps):
        before, after = schedule.steps[:place], schedule.steps[place + 1 :]
        yield dataclasses.replace(schedule, steps=before + after)
        parts = [dataclasses.replace(step, faults=faults) for faults in _shorter(step.faults)]
        if len(step.calls) > 1:
            parts += [dataclasses.replace(step, calls=calls) for calls in _shorter(step.calls)]
        if step.together and len(step.calls) == 1:
            parts.append(dataclasses.replace(step, together=False))
        for part in parts:
            yield dataclasses.replace(schedule, steps=(*before, part, *after))
    for place, process in enumerate(schedule.processes):
        for order in _shorter(process.order) if len(process.order) > 1 else ():
            changed = dataclasses.replace(process, order=order)
            yield dataclasses.replace(
                schedule, processes=(*schedule.processes[:place], changed, *schedule.processes[place + 1 :])
            )


def _shorter(items: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for place in range(len(items)):
        yield items[:place] + items[place + 1 :]


# By itself: `python -m tests.campaign 50000`.


def _share(seeds: Sequence[int]) -> Counts | str:
    with tempfile.TemporaryDirectory() as home, Campaign(Path(home)) as campaign:
        try:
            return campaign.run(seeds)
        except Violation as found:
            return str(found)


def main() -> None:
    """Play as many schedules as the command line says, on all cores, and print what they met."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING")):
            del os.environ[name]
    total, started = Counts(), time.perf_counter()
    shares = [range(start, min(start + 250, count)) for start in range(0, count, 250)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        for found in pool.imap_unordered(_share, shares):
            if isinstance(found, str):
                sys.exit(found)
            total += found
    total.seconds = time.perf_counter() - started
    sys.stdout.write(f"{total}\n")


if __name__ == "__main__":
    main()
