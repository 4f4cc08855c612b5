"""The fault campaign: random schedules of servers, failures, processes and calls, and an oracle that knows whose each vector is.

`Campaign` plays a `Schedule` without sockets, against a transport in memory, and judges every vector that came back: one index,
one space, or an error was raised. An index is what one process embeds, with its copies; what all processes of one home embed
under one name of a space; and what all that locked one folder embed, on whichever machine.
"""

import asyncio
import contextlib
import copy
import dataclasses
import logging
import multiprocessing
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import langchain_hf_gateway
import llamaindex_hf_gateway
from hf_gateway import Gateway, Target, VectorSpace, errors
from hf_gateway import gateway as gateway_module
from hf_gateway.backends.openai import OpenAIEmbedding
from hf_gateway.engines import sources
from hf_gateway.runtime.driver import Clock, Transport
from hf_gateway.spaces.request_canaries import MIN_BATCH_TEXTS
from hf_gateway.testing import ManualClock
from tests.support.campaign_world import (
    HASH,
    HASH_DIM,
    HASHED,
    MODEL,
    QUERY_PROMPT,
    SPACES,
    WORDS,
    Call,
    Inline,
    Process,
    Rows,
    Schedule,
    Shelf,
    World,
    drawn,
    spaces_of,
)

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
    others left in the cache it shares with them; life: how often the process had begun anew; family: of the process that this
    one is a copy of; locked: the folder, and how often it was wiped.
    """

    process: int
    life: int
    family: Any
    locked: Any
    call: int
    index: Any
    text: str
    spaces: frozenset[str]
    own: frozenset[str]
    leak: frozenset[str]


@dataclass
class Counts:
    """What a campaign met.

    leaks: calls that got vectors of a model swapped since the last canary, by canary_every; again: such vectors read from a
    cache later on; of_replicas: calls for queries that met another server behind one address than their canary did.
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
    copies: int = 0
    of_replicas: int = 0
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
            f"  fingerprints replaced by the model's own files: {self.takeovers}; copies: {self.copies}; "
            f"calls for queries that met an unproven server behind one address: {self.of_replicas}"
        )


class Run:
    """One schedule being played."""

    def __init__(
        self, schedule: Schedule, home: Path, loop: asyncio.AbstractEventLoop, takeovers: Callable[[], int]
    ) -> None:
        from llama_index.core.storage.kvstore import SimpleKVStore

        self.schedule = schedule
        self.home = home
        self.loop = loop
        self.takeovers = takeovers
        self.world = World(schedule)
        self.clock = ManualClock()
        self.shelf, self.store = Shelf(), SimpleKVStore()
        self.gateways: dict[int, Gateway | None] = {}
        self.families: dict[int, Any] = {}
        self.begun: Counter[int] = Counter()
        self.wiped: Counter[int] = Counter()
        self.doors: dict[tuple[int, str], Any] = {}
        self.kept: list[Kept] = []
        self.spoilt: dict[str | None, frozenset[str]] = defaultdict(frozenset)
        self.counts = Counts(schedules=1)

    def play(self) -> Counts:
        """Play it and judge. Raises Violation."""
        for step in self.schedule.steps:
            self.clock.advance(step.advance)
            self.world.faults = {place: [fault, count, after] for place, fault, count, after in step.faults}
            for number in step.restarts:
                self._restart(number)
            for lock in step.wipes:
                shutil.rmtree(self._folder(lock), ignore_errors=True)
                self.wiped[lock] += 1
                self.clock.advance(2.0)
            homes = {self.schedule.processes[call.process].home for call in step.calls}
            if step.together and len(homes) == 1:
                self.loop.run_until_complete(self._together(step.calls))
            else:
                for call in step.calls:
                    self._alone(call)
        self.counts.requests = sum(self.world.requests)
        self.counts.swaps = any(map(self.world.swapped, range(len(self.schedule.servers))))
        self.counts.quarantines = sum(
            space_check.state == "quarantined"
            for gateway in self.gateways.values()
            if gateway is not None
            for space_check in gateway._guard._space_checks.values()
        )
        self.counts.takeovers = self.takeovers()
        self._judge()
        return self.counts

    def _restart(self, number: int) -> None:
        self.gateways.pop(number, None)
        self.doors = {known: door for known, door in self.doors.items() if known[0] != number}
        self.begun[number] += 1

    def _folder(self, lock: int) -> Path:
        return self.home / f"index{lock}"

    def _gateway(self, number: int) -> Gateway | None:
        if number not in self.gateways:
            process = self.schedule.processes[number]
            try:
                if process.copy_of is None:
                    made = self._built(process)
                    self.families[number] = number, self.begun[number]
                elif (original := self._gateway(process.copy_of)) is None:
                    made = None
                else:
                    with self._at(process.home):
                        made = self._copied(original, process.way)
                    self.families[number] = self.families[process.copy_of]
            except (errors.SpaceMismatch, errors.ConfigError) as error:
                self.counts.refusals[type(error).__name__] += 1
                made = None
            if made is not None:
                made._chain.jitter = self.world.dice.uniform
                made.observe(self._observe)
            self.gateways[number] = made
        return self.gateways[number]

    def _built(self, process: Process) -> Gateway:
        prompts = {"query_prompt": QUERY_PROMPT, "document_prompt": ""} if self.schedule.prompts else {}
        with self._at(process.home):
            gateway = Gateway(
                MODEL,
                [self._target(place) for place in process.order],
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
            if process.lock is not None:
                gateway.lock_index(self._folder(process.lock))
        return gateway

    def _copied(self, original: Gateway, way: str) -> Gateway:
        self.counts.copies += 1
        door, _, how = way.rpartition(" ")
        it: Any = original
        if door:
            made_by: Any = (
                langchain_hf_gateway.HFGatewayEmbeddings
                if door == "langchain"
                else llamaindex_hf_gateway.HFGatewayEmbedding
            )
            it = made_by.from_gateway(original)
        if how == "model_copy":
            made = it.model_copy(update={"timeout": 50.0})
        elif how == "pickle":
            made = pickle.loads(pickle.dumps(it))
        else:
            made = copy.deepcopy(it) if how == "deepcopy" else copy.copy(it)
        return made.gateway if door else made

    @contextlib.contextmanager
    def _at(self, home: int) -> Iterator[None]:
        """Be on one of the two machines."""
        before = os.environ["HF_GATEWAY_HOME"]
        os.environ["HF_GATEWAY_HOME"] = str(self.home / f"home{home}")
        try:
            yield
        finally:
            os.environ["HF_GATEWAY_HOME"] = before

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
                self.doors[known] = langchain_hf_gateway.HFGatewayEmbeddings.from_gateway(gateway)
            else:
                cached = self.schedule.processes[call.process].cache == "llamaindex"
                settings = {"embeddings_cache": self.store} if cached else {}
                self.doors[known] = llamaindex_hf_gateway.HFGatewayEmbedding.from_gateway(gateway, **settings)
        return self.doors[known]

    def _alone(self, call: Call) -> None:
        if (gateway := self._gateway(call.process)) is None:
            return
        texts = [WORDS[place] for place in call.texts]
        with self._at(self.schedule.processes[call.process].home), self._noting(call, gateway, texts) as note:
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
        with self._at(self.schedule.processes[calls[0].process].home):
            outcomes = await asyncio.gather(*map(self._async, calls), return_exceptions=True)
        for outcome in outcomes:
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
            ) | self._of_replicas(process, call.role)
            cache = process.cache and (process.cache, call.role)
            if cache:
                self.spoilt[cache] |= own
            leak = own | self.spoilt[cache]
            locked = process.lock if process.lock is None else (process.lock, self.wiped[process.lock])
            family, index = self.families[call.process], (process.home, gateway.space.id)
            life = self.begun[call.process]
            self.counts.vectors += len(rows)
            for text, row in zip(texts, rows, strict=True):
                found = spaces_of(row, text, prompt)
                self.kept.append(
                    Kept(call.process, life, family, locked, number, index, prompt + text, found, own, leak)
                )

        try:
            yield note
        except errors.GatewayError as error:
            self.counts.refusals[type(error).__name__.split("_")[0]] += 1

    def _of_replicas(self, process: Process, role: str) -> frozenset[str]:
        """Name what servers behind one address may give, though their canaries were right: the bound that is promised."""
        servers = [self.world.servers[place] for place in process.order if place != HASH]
        unproven = [
            server
            for server in servers
            if server.replica is not None
            and (
                not process.canary_every
                or (server.max_texts or MIN_BATCH_TEXTS) < MIN_BATCH_TEXTS
                or (role == "query" and not server.tells and process.cache != "ours")
            )
        ]
        return frozenset(kind for server in unproven for kind in (server.kind, server.replica) if kind is not None)

    def _judge(self) -> None:
        allowed = {*SPACES, HASHED}
        leaked: list[Kept] = []
        for life in sorted({(each.process, each.life, each.family) for each in self.kept}):
            process, kept = life[0], [each for each in self.kept if (each.process, each.life, each.family) == life]
            leaked += self._strange(kept, allowed, f"process {process}")
        self._bound(leaked)
        for locked in sorted({each.locked for each in self.kept if each.locked is not None}):
            self._strange([each for each in self.kept if each.locked == locked], allowed, f"locked index {locked}")
        if self.counts.takeovers:
            return  # said in the log: what earlier processes made is of another space than what later ones make
        # On another machine a copy made before the first vector is bound by the index alone, which is judged above.
        for family in sorted({(each.family, each.index[0]) for each in self.kept}):
            kept = [each for each in self.kept if (each.family, each.index[0]) == family]
            self._strange(kept, allowed, f"copies of {family[0]}")
        for index in sorted({each.index for each in self.kept}):
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

    def _leaky(self, process: Process) -> bool:
        """Whether one of its servers is not the same all the time."""
        places = [place for place in process.order if place != HASH]
        return any(self.world.swapped(place) or self.world.servers[place].replica for place in places)

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
            self.counts.leaks[process.canary_every] += 0 if self._of_replicas(process, "query") else fresh[number]
            self.counts.of_replicas += fresh[number] if self._of_replicas(process, "query") else 0
            group = process.cache or number  # who reads a cache may seem to have leaked what another left there
            swapped = sum(place != HASH and self.world.swapped(place) for place in process.order)
            unbounded = not process.canary_every or self._of_replicas(process, "query")
            windows[group] += 10**6 if unbounded and self._leaky(process) else swapped * (process.canary_every - 1)
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


class Played(Transport):
    """Stands in the place of HttpTransport: each one that is made is the world that is being played."""

    world: ClassVar[Any] = None

    def __new__(cls) -> Any:  # type: ignore[misc]
        return cls.world


class PlayedClock(Clock):
    """Stands in the place of Clock, likewise."""

    clock: ClassVar[Any] = None

    def __new__(cls) -> Any:  # type: ignore[misc]
        return cls.clock


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
            mock.patch.object(OpenAIEmbedding, "authoritative", property(lambda it: ".files" in it.target.url)),
            mock.patch.object(
                logging.getLogger("hf_gateway.gateway"), "disabled", True
            ),  # every fallback is told there
            mock.patch.dict(os.environ, {"HF_GATEWAY_HOME": str(self.home / "home0")}),
            # Copies are made without the transport and the clock of their originals.
            mock.patch.object(gateway_module, "HttpTransport", Played),
            mock.patch.object(gateway_module, "Clock", PlayedClock),
        ):
            self._stack.enter_context(patch)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def play(self, schedule: Schedule) -> Counts:
        """Play one in an empty home. Raises Violation."""
        self._takeovers.count = 0
        try:
            run = Run(schedule, self.home, self.loop, lambda: self._takeovers.count)
            Played.world, PlayedClock.clock = run.world, run.clock
            return run.play()
        except Violation:
            raise
        except Exception as error:
            raise Violation(schedule, f"an error that is none of ours: {type(error).__name__}: {error}") from error
        finally:
            for pattern in ("home*/fingerprints/*", "home*/decisions/*", "index*/*"):
                for path in self.home.glob(pattern):
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
        parts: list[Any] = [dataclasses.replace(step, restarts=()) for _ in step.restarts[:1]]
        parts += [dataclasses.replace(step, wipes=()) for _ in step.wipes[:1]]
        parts += [dataclasses.replace(step, faults=faults) for faults in _shorter(step.faults)]
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
