"""The guard of a chain of embeddings: decides whose vectors may be used, before the first one and again from time to time.

A target's space is declared by names, files and servers; here it is measured. Before a target's first vector the canary texts
are embedded and compared with the space's fingerprint; a target that differs is quarantined: none of its vectors is returned, and
the error says what probably differs and how to accept it explicitly.
"""

import dataclasses
import os
import weakref
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from hf_gateway.errors import BatchTooLarge, GatewayError, Quarantined, SpaceMismatch
from hf_gateway.runtime.effects import Compute
from hf_gateway.settings.spaces import SpaceOptions
from hf_gateway.spaces.binding import SpaceBinding, SpaceDecision
from hf_gateway.spaces.fingerprint import CANARIES, LONG_CANARIES, Comparison, Fingerprint, Rows, Store, compare
from hf_gateway.spaces.measurement import Measurable, Measuring, all_places, measure
from hf_gateway.spaces.request_canaries import (
    MAX_IDENTITIES,
    QUERY_TEXTS,
    SHORT_TEXT_CHARS,
    Canary,
    canaries_for,
    difference,
    room_for,
    with_canaries,
    without_canaries,
)
from hf_gateway.spaces.space_check import SpaceCheck
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.embedding import EmbedRequest, Role, VectorAnswer
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace

log = logger(__name__)

OUT_OF_ORDER = "the rows of a batch stand in another order than its texts, or a text's vector depends on its neighbours"

CHANGED = (
    "what it answered before; the model behind it has changed, or not all servers behind its address have the same one"
)
MIXED = "what it answered a moment ago; not all servers behind its address have the same model"

ROLES: tuple[Role, ...] = ("document", "query")


class Guard:
    """Shared by the targets of one chain. Safe for threads: a check by two threads at once is made twice, with one result."""

    def __init__(self, options: SpaceOptions, declare: Callable[[], VectorSpace], store: Store | None = None) -> None:
        """declare: returns the chain's space as it is declared now; a target without a model learns it from its server.

        With on_space_change="separate" each target has its own, and the first that answers is pinned.
        """
        self._options = options
        self._declare = declare
        self._space = declare()
        self._separate = options.on_space_change == "separate"
        self._store = store or Store()
        self._lock = fork_lock()
        self._pinned: VectorSpace | None = None
        self._held: Rows | None = None  # the fingerprint of the first vector's target
        self._decision: SpaceDecision | None = None  # set once there are copies
        self._space_checks: dict[Measurable, SpaceCheck] = {}
        self.caching = False
        """Whether vectors are cached, also of queries: then each request of queries has canaries, like those of documents."""
        if self._separate:
            _SEPARATE_GUARDS.add(self)

    @property
    def checks(self) -> bool:
        """Whether vectors are measured at all."""
        return self._options.check_space

    @property
    def pinned(self) -> VectorSpace | None:
        """The space of the vectors that this chain has returned; None before the first."""
        return self._pinned

    def pin(self, space: VectorSpace) -> None:
        """Fix the space before the first vector, because an index has it. Raises SpaceMismatch if another one is fixed."""
        with self._lock:
            if self._pinned is not None and (differences := self._pinned.differences(space)):
                raise SpaceMismatch(f"this chain is pinned to {self._pinned.model} already: {differences[0]}")
            self._pinned = self._pinned or space

    def binding(self) -> SpaceBinding:
        """Return the binding for a copy of the chain; an open choice is shared by the chain and its copies."""
        with self._lock:
            if self._separate and self._pinned is None and self._decision is None:
                self._decision = SpaceDecision()
            return SpaceBinding(self._pinned, self._held, decision=self._decision)

    def bind(self, binding: SpaceBinding) -> None:
        """Bind this chain to the promises of another one, of which it is a copy."""
        with self._lock:
            self._pinned, self._held, self._decision = binding.pinned, binding.reference, binding.decision

    def space_of(self, target: Measurable) -> VectorSpace:
        """Return the space that a target is held to: that of a pinned chain, which may know more than the target's own."""
        if not self._separate:
            return self._space
        own, pinned = target.space, self._pinned
        return own if pinned is None or pinned.differences(own) else pinned

    def space_check(self, target: Measurable) -> SpaceCheck:
        """Return what is known about a target's vectors."""
        with self._lock:
            return self._space_checks.setdefault(target, SpaceCheck())

    def refusal(self, target: Measurable) -> GatewayError | None:
        """Return why a target may not serve, before anything is sent to it, or None."""
        space_check = self.space_check(target)
        if space_check.error is not None:
            return space_check.error
        pinned, own = self._pinned, self.space_of(target)
        if pinned is not None and (differences := pinned.differences(own)):
            return Quarantined(
                f"this chain is pinned to {pinned.model}, by its first vector or its index: {differences[0]}",
                target=target.label,
            )
        return None

    def check_before_first_use(self, target: Measurable) -> Measuring:
        """Check a target before its first vector; returns the `Usage` of the check, None if no check was needed.

        Raises:
            Quarantined, SpaceMismatch: the target's vectors are of another space.
            GatewayError: the target did not answer.
        """
        space_check = self.space_check(target)
        if space_check.error is not None:
            raise space_check.error
        if space_check.state == "same" or not self._options.check_space:
            return None
        used: list[Usage] = []
        rows = yield from self._measure_served(target, used)
        space = self.space_of(target)
        if not target.authoritative and (yield Compute(lambda: self._store.load(space))) is None:
            used.append((yield from self._check_order(target, rows)))
        comparison, reference = yield Compute(lambda: self._settle(target, space, rows))
        if not comparison.same:
            raise self._quarantine(target, comparison, reference.origin)
        with self._lock:
            space_check.state, space_check.against, space_check.comparison = "same", reference.origin, comparison
            space_check.rows = reference.accepted.get(target.label, reference.rows)
            space_check.reference = reference.rows
        return reduce(_sum_usage, used)

    def _measure_served(self, target: Measurable, used: list[Usage]) -> Measuring:
        """Measure a target, unless it reports another space, before or with its answers; returns `Rows`."""
        yield from self._check_reported(target, (yield from target.served_space()))
        rows = yield from self._measure_places(target, all_places(long=self._options.truncate), used)
        yield from self._check_reported(target, target.reported_space)
        return rows

    def _check_reported(self, target: Measurable, reported: VectorSpace | None) -> Measuring:
        if self._pinned is None:
            self._space = self._declare()
        space = self.space_of(target)
        differences = space.differences(reported) if reported is not None else []
        if differences and not (yield Compute(lambda: self._is_accepted(target, space))):
            raise self._quarantine(target, Comparison({}, 0.0, tuple(map(str, differences))), None)

    def _check_order(self, target: Measurable, rows: Rows) -> Measuring:
        """Embed one canary alone: the target that makes the fingerprint must give it the same vector as in a batch.

        Returns the `Usage`.
        """
        alone: VectorAnswer[Any] = yield from target.embed_shaped(EmbedRequest([CANARIES[1]], "document"))
        row = rows["document"][1]
        if row is not None:
            one: Rows = {"document": (None, tuple(alone.vectors.comparable(0)))}
            comparison = compare({"document": (None, row)}, one, cut=False)
            if not comparison.same:
                raise self._quarantine(
                    target,
                    dataclasses.replace(comparison, causes=(OUT_OF_ORDER,)),
                    "it does when the same text comes alone",
                )
        return alone.usage

    def measure(self, target: Measurable, *, long: bool = True) -> Measuring:
        """Embed the canaries in both roles; returns `Rows`.

        Args:
            target: the target to measure.
            long: include the canary that shows where texts are truncated.
        """
        return measure(target, all_places(long=long), [], repeat=False)

    def _measure_places(self, target: Measurable, batches: list[list[int]], used: list[Usage]) -> Measuring:
        """Embed the canaries at these indexes in both roles; `used` receives the usage."""
        rows = yield from measure(target, batches, used, repeat=True)
        if isinstance(rows, Comparison):
            raise self._quarantine(target, rows, MIXED)
        return rows

    def batch_texts(self, target: Measurable) -> int | None:
        """Return how many texts of a caller fit into one request, beside the canaries; None for any number."""
        return (
            room_for(target.most_texts, len(self._roles(target))) if self._canary_is_due(target) else target.most_texts
        )

    def _canary_is_due(self, target: Measurable) -> bool:
        """Return whether requests to a target contain canaries."""
        return bool(self._options.canary_every and self._options.check_space and not target.authoritative)

    def _roles(self, target: Measurable) -> tuple[Role, ...]:
        return ("document",) if target.one_role or not target.mixes_roles else ROLES

    def embed(self, target: Measurable, request: EmbedRequest) -> Measuring:
        """Embed for a caller, in most requests with canaries among the texts; returns the `VectorAnswer` without them.

        Args:
            target: the target to call.
            request: the caller's texts.

        Raises:
            Quarantined: the answer is of another space than the one the target was checked for.
        """
        space_check = self.space_check(target)
        if space_check.rows is None or not self._canary_is_due(target):
            return (yield from target.embed_shaped(request))
        try:
            return (yield from self._embed_proven(target, request, space_check))
        except BatchTooLarge as limit:
            limit.max_texts = room_for(limit.max_texts, len(self._roles(target)))
            raise

    def _embed_proven(self, target: Measurable, request: EmbedRequest, space_check: SpaceCheck) -> Measuring:
        """Embed, and again with canaries if an answer without them comes from a model or server that was not proven yet."""
        if canaries := self._canaries(target, request, space_check):
            return (yield from self._embed_with(target, request, canaries, space_check))
        answer: VectorAnswer[Any] = yield from target.embed_shaped(request)
        record = space_check.canaries
        told_apart = len(record.identities) < MAX_IDENTITIES and not record.full
        if not told_apart or (answer.model, answer.server) in record.identities:
            return answer
        record.unproven = QUERY_TEXTS
        if canaries := self._canaries(target, request, space_check):
            again: VectorAnswer[Any] = yield from self._embed_with(target, request, canaries, space_check)
            return dataclasses.replace(again, usage=_sum_usage(again.usage, answer.usage))
        return answer

    def _canaries(self, target: Measurable, request: EmbedRequest, space_check: SpaceCheck) -> tuple[Canary, ...]:
        assert space_check.rows is not None
        with self._lock:
            return canaries_for(
                request,
                space_check.canaries,
                space_check.rows,
                both_roles=len(self._roles(target)) > 1,
                most=target.most_texts,
                always=self.caching,
            )

    def _embed_with(
        self, target: Measurable, request: EmbedRequest, canaries: Sequence[Canary], space_check: SpaceCheck
    ) -> Measuring:
        record = space_check.canaries
        try:
            whole: VectorAnswer[Any] = yield from target.embed_shaped(with_canaries(request, canaries))
        except BatchTooLarge as limit:
            if limit.max_texts is not None and limit.max_texts < len(request.texts):
                raise
            alone: VectorAnswer[Any] = yield from target.embed_shaped(
                request
            )  # raises if the batch is too large without canaries, too
            if len(request.texts) == 1 and len(request.texts[0]) <= SHORT_TEXT_CHARS:
                record.takes_one = True
            return alone
        answer, found = without_canaries(whole, canaries)
        assert space_check.rows is not None
        if (comparison := difference(canaries, found, space_check.rows, record)) is not None:
            raise self._quarantine(target, comparison, CHANGED)
        with self._lock:
            record.unproven = record.full = 0
            record.identities.add((answer.model, answer.server))
        return answer

    def check_answer(self, target: Measurable, answer: VectorAnswer[Any]) -> Measuring:
        """Check an answer before it is returned; returns it, with the usage of a periodic canary added.

        Args:
            target: the target that answered.
            answer: its answer.

        Raises:
            Quarantined: the model behind the target has changed, or the answer is not of the space the chain is pinned to.
        """
        answer = yield from self._run_periodic_canary(target, answer)
        if (error := self.space_check(target).error) is not None:
            raise error  # found by another call while this one was under way
        space = self.space_of(target)
        pinned = self._pinned
        while pinned is None:
            pinned = yield from self._decide(space, self.space_check(target).reference)
        if differences := pinned.differences(space):
            raise Quarantined(
                f"this chain is pinned to {pinned.model} since its first vector: {differences[0]}", target=target.label
            )
        self._pin_fingerprint(target)
        return answer

    def _decide(self, space: VectorSpace, reference: Rows | None) -> Measuring:
        """Pin the chain, alone or together with its copies; returns the space, None if a copy was made meanwhile."""
        decision, settled = self._decision, SpaceBinding(space)
        if decision is not None:
            settled = yield Compute(lambda: decision.settle(space, reference))
        with self._lock:
            if self._pinned is None and self._decision is decision:
                self._pinned, self._held = settled.pinned, settled.reference
            return self._pinned

    def _pin_fingerprint(self, target: Measurable) -> None:
        """Hold a target to the fingerprint of the chain's first vector: its own may have another name, or be newer."""
        space_check = self.space_check(target)
        if space_check.fits or space_check.reference is None:
            return
        with self._lock:
            if self._held is None:
                self._held = space_check.reference
            held = self._held
        comparison = self._compare(held, space_check.reference)
        if not comparison.same:
            raise self._quarantine(target, comparison, "what has answered in this chain so far")
        space_check.fits = True

    def _run_periodic_canary(self, target: Measurable, answer: VectorAnswer[Any]) -> Measuring:
        every, space_check = self._options.canary_every, self.space_check(target)
        if not every or not self._options.check_space or space_check.rows is None or target.authoritative:
            return answer
        with self._lock:
            space_check.requests += 1
            seen = space_check.requests
        if seen - space_check.checked_at_request < every:
            return answer
        # All short texts, since one alone does not show the order; in both roles, since either prompt may be missing.
        used = [answer.usage]
        rows = yield from self._measure_places(target, [list(range(LONG_CANARIES))], used)
        comparison = compare(space_check.rows, rows, cut=False)
        if not comparison.same:
            raise self._quarantine(target, comparison, CHANGED)
        with self._lock:
            space_check.checked_at_request = max(space_check.checked_at_request, seen)
        return dataclasses.replace(answer, usage=reduce(_sum_usage, used))

    def _is_accepted(self, target: Measurable, space: VectorSpace) -> bool:
        known = self._store.load(space)
        return known is not None and target.label in known.accepted

    def _settle(self, target: Measurable, space: VectorSpace, rows: Rows) -> tuple[Comparison, Fingerprint]:
        """Compare with the space's fingerprint, or become it: reads and writes files."""
        own = Fingerprint(space, "files" if target.authoritative else "server", target.label, rows)
        try:
            reference = self._store.keep_first(own)
        except OSError as error:
            notice_once(f"fingerprints of vector spaces cannot be stored ({error}), so they hold for this process only")
            with self._lock:
                reference = _FINGERPRINTS_IN_MEMORY.setdefault(self._store.path(space), own)
        accepted = reference.accepted.get(target.label)
        if accepted is not None and (found := self._compare(accepted, rows)).same:
            return found, reference
        comparison = self._compare(reference.rows, rows)
        if target.authoritative and (reference.authority == "server" or self._differs_in_cut_only(reference, rows)):
            # The model's files define its space; a target that differs from them learns so at its next check.
            if not comparison.same:
                log.warning(
                    "%s: the model's own files (%s) differ from %s, by which vectors were let in until now: what was made with "
                    "those is of another space; probably %s",
                    space.model,
                    target.label,
                    reference.origin,
                    comparison.causes[0],
                )
            self._replace(dataclasses.replace(own, accepted=reference.accepted))
            return self._compare(rows, rows), own
        if comparison.same and (whole := reference.completed_with(rows)) is not reference:
            # Made by a chain that never truncates: the first target that is measured with truncation completes it.
            self._replace(reference := whole)
        return comparison, reference

    def _differs_in_cut_only(self, reference: Fingerprint, rows: Rows) -> bool:
        """Return whether only the place of truncation differs: a server may have added that to a fingerprint of files."""
        return not self._compare(reference.rows, rows).same and compare(reference.rows, rows, cut=False).same

    def _replace(self, fingerprint: Fingerprint) -> None:
        try:
            self._store.replace(fingerprint)
        except OSError as error:
            notice_once(f"fingerprints of vector spaces cannot be stored ({error}), so they hold for this process only")
            _FINGERPRINTS_IN_MEMORY[self._store.path(fingerprint.space)] = fingerprint

    def _compare(self, reference: Rows, rows: Rows) -> Comparison:
        return compare(reference, rows, cut=self._options.truncate)

    def _quarantine(self, target: Measurable, comparison: Comparison, against: str | None) -> SpaceMismatch:
        """Record that a target differs, and return the error. against: what it was compared with, None for its declaration."""
        worst = ", ".join(f"{role} {cosine:.4f}" for role, cosine in comparison.worst.items())
        what = (
            f"{target.label} says itself that it serves another vector space: {'; '.join(comparison.causes)}"
            if against is None
            else f"{target.label} answers in another vector space than {against}"
            + (f" (worst cosine: {worst})" if worst else "")
            + f"; probably {comparison.causes[0]}"
        )
        command = self._options.verify_command
        error = Quarantined(
            f"{what}. Nothing of it was used. Look with `{command}`; if it is meant to be, accept it: `{command} "
            f"--accept {target.label}`, with the --model and --targets, or the --chain, of this chain",
            target=target.label,
        )
        with self._lock:
            space_check = self._space_checks[target]
            space_check.state, space_check.against = "quarantined", against
            space_check.comparison, space_check.error = comparison, error
        return error


_FINGERPRINTS_IN_MEMORY: dict[Path, Fingerprint] = {}
"""Fingerprints that hold for this process only, by the path at which they could not be written."""

_SEPARATE_GUARDS: "weakref.WeakSet[Guard]" = weakref.WeakSet()
"""Guards of chains whose space the first vector decides."""


def _before_fork() -> None:
    """Share the choice of each such chain with its copy in the child, as with any other copy."""
    for guard in list(_SEPARATE_GUARDS):
        guard.binding()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)


def _sum_usage(one: Usage, other: Usage) -> Usage:
    return one + other if one.input_tokens is not None else one
