"""Finding out whether the targets of a chain, and what was measured of them before, are one vector space; and if not, why not.

The guard lets nothing wrong through and says so; this asks every target, compares each with each, and, where the model's files
are on this machine, computes with them what each would be with one thing changed.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from hf_gateway.embedding import Role
from hf_gateway.engines import sources
from hf_gateway.errors import BadResponse, ConfigError, EngineMissing, GatewayError, SpaceMismatch, nearest
from hf_gateway.fingerprint import (
    CUT_ELSEWHERE,
    FOREIGN,
    FOREIGN_TO_FILES,
    QUANTISED,
    SHUFFLED,
    UNMEASURED,
    Comparison,
    Fingerprint,
    Row,
    Rows,
    Store,
    compare,
)
from hf_gateway.gateway import Gateway
from hf_gateway.link import EmbedLink, _shaped
from hf_gateway.lock import IndexLock
from hf_gateway.options import EmbedOptions, EmbedSettings
from hf_gateway.space import VectorSpace
from hf_gateway.vectors import Vectors

Verdict = Literal["same", "different", "could not be asked"]

FILES = "the model's own files"
STORED = "the stored fingerprint"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a target, what is stored of the space, or the model's own files.

    name: a target's label, or what it is; authority: who made its vectors, as in `Fingerprint`; said: one line about it;
    rows: None where there are no vectors, and then error says why; faults: what the server itself says against the space
    declared for it; accepted: a person took these vectors for the space's on purpose.
    """

    name: str
    kind: Literal["target", "fingerprint", "files"]
    space: VectorSpace
    authority: Literal["files", "server"]
    said: str
    rows: Rows | None = field(default=None, repr=False)
    error: GatewayError | None = None
    faults: tuple[str, ...] = ()
    accepted: bool = False

    @property
    def answered(self) -> bool:
        """Whether anything came, be it of use or not."""
        return self.rows is not None or isinstance(self.error, BadResponse)


@dataclass(frozen=True)
class Pair:
    """Two sides; where they differ, it is `right` that probably does something else than `left`.

    notes: what does not count against them, such as long texts cut elsewhere where cutting is not allowed.
    """

    left: Side
    right: Side
    comparison: Comparison | None
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What came of it."""
        if self.comparison is None:
            return "could not be asked"
        return "same" if self.comparison.same else "different"

    @property
    def accepted(self) -> bool:
        """Whether they differ, and a person wants it so."""
        return self.verdict == "different" and (self.left.accepted or self.right.accepted)

    def causes_are(self, causes: tuple[str, ...]) -> bool:
        """Whether these are the causes of its difference."""
        return self.comparison is not None and self.comparison.causes == causes

    def to_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        found = self.comparison
        return {
            "left": self.left.name,
            "right": self.right.name,
            "verdict": self.verdict,
            "accepted": self.accepted,
            "worst_cosine": dict(found.worst) if found else {},
            "norm_difference": found.norm if found else None,
            "causes": list(found.causes) if found else [],
            "what_to_do": [way_out(cause, self.left.space) for cause in found.causes] if found else [],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class IndexReport:
    """What an index was made with.

    lock: None where nobody wrote it down; refusals: target → why it may not open the index, None where it may.
    """

    path: Path
    lock: IndexLock | None
    refusals: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def allowed(self) -> bool:
        """Whether every target that answered may open it."""
        return self.lock is not None and not any(self.refusals.values())

    def to_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        lock = self.lock
        made = lock.fingerprint if lock else None
        return {
            "path": str(self.path),
            "locked": lock is not None,
            "space": lock.space.to_dict() if lock and lock.space else None,
            "created": lock.created if lock else None,
            "by": lock.by if lock else None,
            "fingerprint": {"authority": made.authority, "source": made.source, "taken": made.taken} if made else None,
            "allowed": self.allowed if self.refusals else None,
            "targets": dict(self.refusals),
        }


@dataclass(frozen=True)
class Verification:
    """What was found out about a chain.

    declared: why the chain cannot be built as it is, its targets naming different spaces; targets: in chain order; others: what
    they were compared with; pairs: every two targets, and each target with each of the others of its space; hints: what would
    have been needed to find out more.
    """

    model: str | None
    options: EmbedOptions
    targets: tuple[Side, ...]
    others: tuple[Side, ...]
    pairs: tuple[Pair, ...]
    declared: str | None = None
    hints: tuple[str, ...] = ()
    store: Store = field(default_factory=Store, repr=False)

    @property
    def one_space(self) -> bool:
        """Whether somebody answered, and all that did are one space, or were accepted for one."""
        answered = [side for side in self.targets if side.answered]
        unusable = [side for side in answered if side.rows is None or (side.faults and not side.accepted)]
        return bool(answered) and not unusable and not self.different

    @property
    def different(self) -> list[Pair]:
        """The pairs that differ and that nobody accepted."""
        return [pair for pair in self.pairs if pair.verdict == "different" and not pair.accepted]

    def accept(self, label: str) -> Fingerprint:
        """Store a target's vectors as accepted for its space; returns the fingerprint they were accepted beside.

        Raises:
            ConfigError: no such target, or its server says itself that it serves something else.
            GatewayError: what kept it from answering.
            OSError: the fingerprint cannot be written.
        """
        sides = {side.name: side for side in self.targets}
        if label not in sides:
            raise ConfigError(f"this chain has no target {label!r}{nearest(label, set(sides))}")
        side = sides[label]
        if side.rows is None:
            raise side.error or BadResponse("gave no vectors", target=label)
        if side.faults:
            raise ConfigError(
                f"{label} says itself that it serves another space ({side.faults[0]}), so accepting its vectors would not do; "
                "declare what it serves: Target(..., space=VectorSpace(...))"
            )
        kept = self.store.keep_first(self._first(side))
        self.store.accept(side.space, label, side.rows)
        return kept

    def _first(self, accepted: Side) -> Fingerprint:
        """Return what becomes a space's fingerprint where there is none: anything but what is accepted beside it."""
        others = [
            side
            for side in (*self.others, *self.targets)
            if side.rows is not None and side.space.id == accepted.space.id and side is not accepted
        ]
        side = min(others, key=lambda each: each.authority != "files", default=accepted)
        assert side.rows is not None
        return Fingerprint(side.space, side.authority, side.name, side.rows)

    def index(self, path: str | Path) -> IndexReport:
        """Say what the index in a folder was made with, and which targets may open it. Raises ConfigError."""
        found = read_index(path)
        if found.lock is None:
            return found
        refusals: dict[str, str | None] = {}
        for side in self.targets:
            if side.rows is None:
                continue
            measured = Fingerprint(side.space, side.authority, side.name, side.rows)
            try:
                found.lock.check(side.space, measured, cut=self.options.truncate)
                refusals[side.name] = None
            except SpaceMismatch as error:
                refusals[side.name] = error.message
        return dataclasses.replace(found, refusals=refusals)

    def to_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "model": self.model,
            "one_space": self.one_space,
            "declared": self.declared,
            "targets": [
                {
                    "target": side.name,
                    "space": side.space.to_dict(),
                    "space_id": side.space.id,
                    "authority": side.authority,
                    "answered": side.answered,
                    "error": _told(side.error) if side.error else None,
                    "says_of_itself": list(side.faults),
                    "accepted": side.accepted,
                }
                for side in self.targets
            ],
            "references": [
                {"name": side.name, "space_id": side.space.id, "authority": side.authority, "said": side.said}
                for side in self.others
            ],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "hints": list(self.hints),
        }


def measured_before(gateway: Gateway) -> dict[str, str]:
    """Say of each target whose vectors were measured, now or by an earlier process, how they stood. Asks nobody."""
    found: dict[str, str] = {}
    store = Store()
    for link, status in zip(gateway._links, gateway.status(), strict=True):
        if not isinstance(link, EmbedLink) or status.space_check is None:
            continue
        kept = store.load(gateway._guard.space_of(link))
        worst = "" if status.worst_cosine is None else f", worst cosine {status.worst_cosine:.4f}"
        if status.space_check == "quarantined":
            found[link.label] = f"of another space, so it is quarantined{worst}"
        elif status.space_check == "same":
            found[link.label] = f"of this chain's space{worst}"
        elif kept is not None and link.label in kept.accepted:
            found[link.label] = f"accepted on purpose beside those of {kept.source}"
        elif kept is not None and kept.source == link.label:
            found[link.label] = f"what others are compared with, measured {kept.taken}"
    return found


def read_index(path: str | Path) -> IndexReport:
    """Say what the index in a folder was made with. Raises ConfigError for no folder, and for a lock that cannot be read."""
    folder = Path(path)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(path)!r}; an index is named by the folder it lies in")
    return IndexReport(folder, IndexLock.read(folder))


def verify(settings: EmbedSettings) -> Verification:
    """Measure every target of a chain, and compare. Changes nothing: what is stored stays as it is.

    A chain whose targets declare different spaces is measured all the same. Raises ConfigError for settings that make no sense.
    """
    gateway, declared = _built(settings)
    with gateway:
        return _Comparing(gateway, declared).result()


class _Comparing:
    """The work of `verify`."""

    def __init__(self, gateway: Gateway, declared: str | None) -> None:
        self.gateway = gateway
        self.declared = declared
        self.options: EmbedOptions = gateway._embedding()
        self.store = Store()
        self.links = [link for link in gateway._links if isinstance(link, EmbedLink)]
        self.targets = [self._target(link, rows) for link, rows in zip(self.links, gateway.measure(), strict=True)]
        self.stored = {side.space.id: side for target in self.targets if (side := self._stored(target.space))}
        self.files: dict[str, Side] = {}
        self.variants: dict[str, Mapping[str, Rows]] = {}
        self.hints: list[str] = []

    def result(self) -> Verification:
        for link, target in zip(self.links, self.targets, strict=True):
            if target.rows is not None and target.space.id not in self.files and self._files_tell_more(target):
                self._compute(link, target)
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
        """The model's own files as a side of their own, where no target is just that."""
        own = {side.space.id for side in self.targets if side.authority == "files" and side.rows is not None}
        return {name: side for name, side in self.files.items() if name not in own}

    def _target(self, link: EmbedLink, measured: Rows | GatewayError) -> Side:
        space = self.gateway._guard.space_of(link)
        rows = None if isinstance(measured, GatewayError) else measured
        error = measured if isinstance(measured, GatewayError) else None
        said = "in this process, from the model's own files" if link.authoritative else "a server"
        side = Side(link.label, "target", space, "files" if link.authoritative else "server", said, rows, error)
        if rows is None:
            return side
        served = self.gateway._driver.perform(link.served_space(), timeout=self.gateway._probe_time, target=link.label)
        faults = tuple(map(str, space.differences(served))) if served is not None else ()
        stored = self.store.load(space)
        accepted = stored.accepted.get(link.label) if stored else None
        return dataclasses.replace(
            side, faults=faults, accepted=accepted is not None and self._compare(accepted, rows).same
        )

    def _stored(self, space: VectorSpace) -> Side | None:
        kept = self.store.load(space)
        if kept is None:
            return None
        who = "from the model's own files" if kept.authority == "files" else "which nobody could check"
        said = f"made by {kept.source}, {who}, {kept.taken} ({self.store.path(space)})"
        return Side(STORED, "fingerprint", space, kept.authority, said, kept.rows)

    def _files_tell_more(self, target: Side) -> bool:
        """Whether something differs that they could explain, or nothing else says what the model really gives."""
        stored = self.stored.get(target.space.id)
        known = [side for side in (*self.targets, stored) if side is not None and side.rows is not None]
        differ = any(
            not self._compare(one.rows, other.rows).same
            for one, other in combinations(known, 2)
            if one.rows is not None and other.rows is not None
        )
        own = [side for side in known if side.space.id == target.space.id and side.authority == "files"]
        return differ or not own

    def _compute(self, link: EmbedLink, target: Side) -> None:
        space = target.space
        try:
            files = sources.find(space.model, space.revision)
        except ConfigError:  # a server whose model nobody named
            return
        if files is None:
            if target.authority != "files":
                self.hints.append(
                    f"{space.model} is not on this machine; with its files here, causes can be told apart"
                )
            return
        local = next((each for each in self.links if each.authoritative and self._space_id(each) == space.id), None)
        try:
            from hf_gateway.engines.variants import measured_variants

            own, changed = measured_variants(
                files, space, local.backend.target.options if local else {}, space.revision
            )
        except GatewayError as error:
            how = "" if isinstance(error, EngineMissing) else f"{space.model} is on this machine, and does not run: "
            self.hints.append(f"{how}{error.message}")
            return
        side = Side(FILES, "files", space, "files", f"at {files.path}", self._shaped(own, link))
        self.files[space.id] = side
        self.variants[space.id] = {words: self._shaped(rows, link) for words, rows in changed.items()}

    def _space_id(self, link: EmbedLink) -> str:
        return self.gateway._guard.space_of(link).id

    def _shaped(self, rows: Rows, link: EmbedLink) -> Rows:
        """Cut and scale as the chain does with every target's vectors."""
        found: dict[Role, tuple[Row | None, ...]] = {}
        for role, vectors in rows.items():
            shaped = _shaped(Vectors.of(row for row in vectors if row is not None), link.backend.embed_options)
            found[role] = tuple(tuple(row) for row in shaped)
        return found

    def _pair(self, one: Side, other: Side) -> Pair:
        # Of two models neither is the measure of the other: they stay as the chain has them.
        comparable = one.space.model == other.space.model or None in (one.rows, other.rows)
        left, right = (other, one) if comparable and self._rank(other) < self._rank(one) else (one, other)
        notes = tuple(f"declared: {difference}" for difference in left.space.differences(right.space))
        if left.rows is None:
            return Pair(left, right, None, notes)
        if right.rows is None:
            unusable = isinstance(right.error, BadResponse)
            found = Comparison({}, 1.0, (right.error.message,)) if right.error is not None and unusable else None
            return Pair(left, right, found, notes)
        variants = self.variants.get(left.space.id, {}) if self._is_right(left) else {}
        found = compare(left.rows, right.rows, cut=self.options.truncate, variants=variants)
        if found.same and not compare(left.rows, right.rows, cut=True).same:
            notes += (f"{CUT_ELSEWHERE}, which counts with truncate=True only",)
        return Pair(left, right, found, notes)

    def _rank(self, side: Side) -> int:
        """How sure it is that these are the model's vectors: 0 is the model itself, and what could not be asked is last."""
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
        """Whether these are the vectors that the model's own files give, as far as that is known."""
        own = self.files.get(side.space.id)
        return (
            own is not None
            and own.rows is not None
            and side.rows is not None
            and self._compare(own.rows, side.rows).same
        )

    def _compare(self, reference: Rows, rows: Rows) -> Comparison:
        return compare(reference, rows, cut=self.options.truncate)


_WAYS: Mapping[str, str] = {
    UNMEASURED: "look at what that server runs: `hf-gateway doctor`",
    SHUFFLED: "leave it out until it is mended: its vectors stand at the wrong texts",
    CUT_ELSEWHERE: "give both the same limit of tokens, or leave truncate out",
    QUANTISED: "serve weights of 16 or 32 bits, of the same revision; or keep it apart, with an index of its own",
    FOREIGN: "look at which model that server runs, and with which pooling: `hf-gateway doctor`",
    FOREIGN_TO_FILES: "look at which model that server runs: `hf-gateway doctor`; and name that model for it",
}


def way_out(cause: str, space: VectorSpace) -> str:
    """Say what to do about a cause, beside accepting it."""
    if cause in _WAYS:
        return _WAYS[cause]
    if "pooling" in cause:
        own = space.pooling or "the model's own"
        return f"serve it with {own} pooling (TEI: --pooling {own}, infinity: --pooling-method {own})"
    if "prompt" in cause:
        query, document = space.query_prompt or "", space.document_prompt or ""
        return (
            f"have the server put no prompt of its own, and let the chain put them: query_prompt={query!r}, "
            f"document_prompt={document!r}"
        )
    if "normalisation" in cause or "lengths" in cause:
        return "pass normalize=True, and the vectors of every target are scaled to length 1 here"
    return "look at what that server runs: `hf-gateway doctor`"


def _built(settings: EmbedSettings) -> tuple[Gateway, str | None]:
    """Build the chain as it would be used; one that is refused for the spaces it declares with each target's own."""
    try:
        return Gateway.from_settings(settings), None
    except SpaceMismatch as error:
        apart = settings.model_copy(update={"on_space_change": "separate"})
        return Gateway.from_settings(apart), error.message


def _told(error: GatewayError) -> str:
    return f"{type(error).__name__}: {error.message}"
