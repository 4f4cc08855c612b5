"""Finds out whether the targets of a chain, and their stored fingerprints, are one vector space; and if not, why not.

The guard refuses wrong vectors one target at a time; this measures every target, compares each with each, and, if the model's
files are on this machine, computes with them the vectors that the model would give with one setting changed.
"""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from itertools import combinations
from typing import Any

from hf_gateway.engines import sources
from hf_gateway.errors import ConfigError, EngineMissing, GatewayError, SpaceMismatch
from hf_gateway.gateway import BaseGateway, Gateway
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.spaces import SpaceOptions
from hf_gateway.spaces.fingerprint import CUT_ELSEWHERE, Comparison, Rows, Store, compare
from hf_gateway.tasks.vectors import VectorCandidate
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.vector_gateway import VectorGateway
from hf_gateway.verification.report import FILES, STORED, Pair, Side, Verification


def measured_before(gateway: BaseGateway) -> dict[str, str]:
    """Return the result of each target's last measurement, by this or an earlier process, in words by label. Sends no request."""
    found: dict[str, str] = {}
    store = Store()
    for candidate, status in zip(gateway.candidates, gateway.status(), strict=True):
        if status.space_check is None or candidate.required_space is None:
            continue
        kept = store.load(candidate.required_space)
        worst = "" if status.worst_cosine is None else f", worst cosine {status.worst_cosine:.4f}"
        if status.space_check == "quarantined":
            found[candidate.label] = f"of another space, so it is quarantined{worst}"
        elif status.space_check == "same":
            found[candidate.label] = f"of this chain's space{worst}"
        elif kept is not None and candidate.label in kept.accepted:
            found[candidate.label] = f"accepted on purpose beside those of {kept.source}"
        elif kept is not None and kept.source == candidate.label:
            found[candidate.label] = f"what others are compared with, measured {kept.taken}"
    return found


def verify(settings: NamedSettings) -> Verification:
    """Measure every target of a chain, and compare. Changes no stored fingerprint.

    A chain whose targets declare different spaces is measured all the same. Raises ConfigError for invalid settings.
    """
    gateway, declared = _build_gateway(settings)
    with gateway:
        return _Comparison(gateway, gateway.space_options, declared).result()


class _Comparison:
    """The work of `verify`."""

    def __init__(self, gateway: VectorGateway, options: SpaceOptions, declared: str | None) -> None:
        self.gateway = gateway
        self.declared = declared
        self.options = options
        self.store = Store()
        self.candidates = gateway.candidates
        self.targets = [
            self._target(candidate, rows) for candidate, rows in zip(self.candidates, gateway.measure(), strict=True)
        ]
        self.stored = {side.space.id: side for target in self.targets if (side := self._stored_side(target.space))}
        self.files: dict[str, Side] = {}
        self.variants: dict[str, Mapping[str, Rows]] = {}
        self.hints: list[str] = []

    def result(self) -> Verification:
        for candidate, target in zip(self.candidates, self.targets, strict=True):
            if target.rows is not None and target.space.id not in self.files and self._files_tell_more(target):
                self._compute(candidate, target)
        others = [*self.stored.values(), *self._shown_files.values()]
        found = [self._pair(one, other) for one, other in combinations(self.targets, 2)]
        found += [
            self._pair(target, other)
            for other in others
            for target in self.targets
            if target.space.id == other.space.id
        ]
        return Verification(
            self.gateway.model,
            self.options,
            tuple(self.targets),
            tuple(others),
            tuple(found),
            self.declared,
            tuple(dict.fromkeys(self.hints)),
            self.store,
        )

    @cached_property
    def _shown_files(self) -> dict[str, Side]:
        """The model's own files as a side of their own, if no target already runs them."""
        own = {side.space.id for side in self.targets if side.authority == "files" and side.rows is not None}
        return {name: side for name, side in self.files.items() if name not in own}

    def _target(self, candidate: VectorCandidate[Any], measured: Rows | GatewayError) -> Side:
        space = candidate.required_space
        rows = None if isinstance(measured, GatewayError) else measured
        error = measured if isinstance(measured, GatewayError) else None
        said = "in this process, from the model's own files" if candidate.authoritative else "a server"
        side = Side(
            candidate.label, "target", space, "files" if candidate.authoritative else "server", said, rows, error
        )
        if rows is None:
            return side
        served = self.gateway.served_space(candidate)
        faults = tuple(map(str, space.differences(served))) if served is not None else ()
        stored = self.store.load(space)
        accepted = stored.accepted.get(candidate.label) if stored else None
        return dataclasses.replace(
            side, faults=faults, accepted=accepted is not None and self._compare(accepted, rows).same
        )

    def _stored_side(self, space: VectorSpace) -> Side | None:
        kept = self.store.load(space)
        if kept is None:
            return None
        who = "from the model's own files" if kept.authority == "files" else "which cannot be verified"
        said = f"made by {kept.source}, {who}, {kept.taken} ({self.store.path(space)})"
        return Side(STORED, "fingerprint", space, kept.authority, said, kept.rows)

    def _files_tell_more(self, target: Side) -> bool:
        """Whether the files could explain a difference, or are the only authority on the model's vectors."""
        stored = self.stored.get(target.space.id)
        known = [side for side in (*self.targets, stored) if side is not None and side.rows is not None]
        differ = any(
            not self._compare(one.rows, other.rows).same
            for one, other in combinations(known, 2)
            if one.rows is not None and other.rows is not None
        )
        own = [side for side in known if side.space.id == target.space.id and side.authority == "files"]
        return differ or not own

    def _compute(self, candidate: VectorCandidate[Any], target: Side) -> None:
        space = target.space
        files = sources.find_served(space.model, space.revision)
        if files is None:
            if target.authority != "files":
                self.hints.append(
                    f"{space.model} is not on this machine; with its files here, causes can be distinguished"
                )
            return
        local = next(
            (each for each in self.candidates if each.authoritative and each.required_space.id == space.id), None
        )
        try:
            computed = candidate.rows_by_files(files, local.target.options if local else {})
        except GatewayError as error:
            how = "" if isinstance(error, EngineMissing) else f"{space.model} is on this machine, and does not run: "
            self.hints.append(f"{how}{error.message}")
            return
        if computed is None:
            return
        own, self.variants[space.id] = computed
        self.files[space.id] = Side(FILES, "files", space, "files", f"at {files.path}", own)

    def _pair(self, one: Side, other: Side) -> Pair:
        # Two different models have no reference: they stay in the chain's order.
        comparable = one.space.model == other.space.model or None in (one.rows, other.rows)
        left, right = (other, one) if comparable and self._rank(other) < self._rank(one) else (one, other)
        notes = tuple(f"declared: {difference}" for difference in left.space.differences(right.space))
        if left.rows is None:
            return Pair(left, right, None, notes)
        if right.rows is None:
            found = Comparison({}, 1.0, (right.error.message,)) if right.error is not None and right.answered else None
            return Pair(left, right, found, notes)
        variants = self.variants.get(left.space.id, {}) if self._is_right(left) else {}
        found = compare(left.rows, right.rows, cut=self.options.truncate, variants=variants)
        if found.same and not compare(left.rows, right.rows, cut=True).same:
            notes += (f"{CUT_ELSEWHERE}, which counts with truncate=True only",)
        return Pair(left, right, found, notes)

    def _rank(self, side: Side) -> int:
        """Return how reliable a side's vectors are: 0 for the model's own files, 5 for a side without vectors."""
        if side.rows is None:
            return 5
        if side.authority == "files":
            return 0
        if self._is_right(side):
            return 1
        stored = self.stored.get(side.space.id)
        known = side.kind == "fingerprint" or (
            stored is not None and stored.rows is not None and self._compare(stored.rows, side.rows).same
        )
        return 2 if known else 3

    def _is_right(self, side: Side) -> bool:
        """Whether these are known to be the vectors of the model's own files."""
        own = self.files.get(side.space.id)
        return (
            own is not None
            and own.rows is not None
            and side.rows is not None
            and self._compare(own.rows, side.rows).same
        )

    def _compare(self, reference: Rows, rows: Rows) -> Comparison:
        return compare(reference, rows, cut=self.options.truncate)


def _build_gateway(settings: NamedSettings) -> tuple[VectorGateway, str | None]:
    """Build the chain; if the spaces of its targets contradict each other, with each target's own space."""
    try:
        return _of_vectors(Gateway.from_settings(settings)), None
    except SpaceMismatch as error:
        apart = settings.model_copy(update={"on_space_change": "separate"})
        return _of_vectors(Gateway.from_settings(apart)), error.message


def _of_vectors(gateway: Gateway) -> VectorGateway:
    if not isinstance(gateway, VectorGateway):
        raise ConfigError(f"a chain for {gateway.task} makes no vectors, so that there is nothing to compare")
    return gateway
