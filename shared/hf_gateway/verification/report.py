"""What was found of the targets of a chain, compared with each other and with what was measured before, and the ways out."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hf_gateway.errors import (
    BadResponse,
    ConfigError,
    EngineFailed,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    ServerError,
    SpaceMismatch,
    did_you_mean,
)
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.spaces.fingerprint import (
    CUT_ELSEWHERE,
    FOREIGN,
    FOREIGN_TO_FILES,
    QUANTISED,
    SHUFFLED,
    UNMEASURED,
    Comparison,
    Fingerprint,
    Rows,
    Store,
)
from hf_gateway.spaces.index_lock import IndexLock
from hf_gateway.values.vector_space import VectorSpace

Verdict = Literal["same", "different", "could not be asked"]

_ANSWERS = (BadResponse, InvalidRequest, ModelNotFound, ServerError)
"""Errors by which a server says that it does not serve this, rather than that it cannot be asked now."""
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
        if isinstance(self.error, EngineFailed):
            return False
        return self.rows is not None or isinstance(self.error, _ANSWERS)


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
            "what_to_do": [ways_out(cause, self.left.space) for cause in found.causes] if found else [],
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
            raise ConfigError(f"this chain has no target {label!r}{did_you_mean(label, set(sides))}")
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
                    "error": error_words(side.error) if side.error else None,
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


def read_index(path: str | Path) -> IndexReport:
    """Say what the index in a folder was made with. Raises ConfigError for no folder, and for a lock that cannot be read."""
    folder = Path(path)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(path)!r}; an index is named by the folder it lies in")
    return IndexReport(folder, IndexLock.read(folder))


_WAYS: Mapping[str, str] = {
    UNMEASURED: "look at what that server runs: `hf-gateway doctor`",
    SHUFFLED: "leave it out until it is mended: its vectors stand at the wrong texts",
    CUT_ELSEWHERE: "give both the same limit of tokens, or leave truncate out",
    QUANTISED: "serve weights of 16 or 32 bits, of the same revision; or keep it apart, with an index of its own",
    FOREIGN: "look at which model that server runs, and with which pooling: `hf-gateway doctor`",
    FOREIGN_TO_FILES: "look at which model that server runs: `hf-gateway doctor`; and name that model for it",
}


def ways_out(cause: str, space: VectorSpace) -> str:
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


def error_words(error: GatewayError) -> str:
    """Name an error's class and message."""
    return f"{type(error).__name__}: {error.message}"
