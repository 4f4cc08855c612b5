"""The result of a verification: the targets of a chain, compared with each other and with stored fingerprints."""

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
from hf_gateway.settings.spaces import SpaceOptions
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
"""Errors by which a server reports that it does not serve this, rather than that it cannot be called now."""
FILES = "the model's own files"
STORED = "the stored fingerprint"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a target, a stored fingerprint, or the model's own files."""

    name: str
    """A target's label, or a name such as STORED."""
    kind: Literal["target", "fingerprint", "files"]
    """Which of them it is."""
    space: VectorSpace
    """The space that it should serve."""
    authority: Literal["files", "server"]
    """What made its vectors, as in `Fingerprint`."""
    said: str
    """One line about it."""
    rows: Rows | None = field(default=None, repr=False)
    """Its vectors; None if it gave none, and then `error` says why."""
    error: GatewayError | None = None
    """Why it gave no vectors."""
    faults: tuple[str, ...] = ()
    """What the server reports about itself that contradicts the space declared for it."""
    accepted: bool = False
    """Whether a user accepted these vectors as the space's."""

    @property
    def answered(self) -> bool:
        """Whether there was an answer, usable or not."""
        if isinstance(self.error, EngineFailed):
            return False
        return self.rows is not None or isinstance(self.error, _ANSWERS)


@dataclass(frozen=True)
class Pair:
    """Two sides; if they differ, it is probably `right` that is wrong."""

    left: Side
    """The more reliable side."""
    right: Side
    """The other side."""
    comparison: Comparison | None
    """The result; None if one side gave no vectors."""
    notes: tuple[str, ...] = ()
    """Differences that do not count, such as another place of truncation if texts may not be truncated."""

    @property
    def verdict(self) -> Verdict:
        """The result in one word."""
        if self.comparison is None:
            return "could not be asked"
        return "same" if self.comparison.same else "different"

    @property
    def accepted(self) -> bool:
        """Whether they differ, and a user accepted that."""
        return self.verdict == "different" and (self.left.accepted or self.right.accepted)

    def causes_are(self, causes: tuple[str, ...]) -> bool:
        """Whether these are the causes of its difference."""
        return self.comparison is not None and self.comparison.causes == causes

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
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
    """The lock of an index, and which targets may open it."""

    path: Path
    """The folder."""
    lock: IndexLock | None
    """None if the index has no lock."""
    refusals: Mapping[str, str | None] = field(default_factory=dict)
    """Target → why it may not open the index, None if it may."""

    @property
    def allowed(self) -> bool:
        """Whether every target that answered may open it."""
        return self.lock is not None and not any(self.refusals.values())

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
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
    """The result for a chain."""

    model: str | None
    """The chain's model."""
    options: SpaceOptions
    """The chain's settings."""
    targets: tuple[Side, ...]
    """In chain order."""
    others: tuple[Side, ...]
    """The stored fingerprints and model files that the targets were compared with."""
    pairs: tuple[Pair, ...]
    """Every two targets, and each target with each of the others of its space."""
    declared: str | None = None
    """Why the chain cannot be built as it is, because its targets declare different spaces."""
    hints: tuple[str, ...] = ()
    """What would have allowed a more precise result."""
    store: Store = field(default_factory=Store, repr=False)
    """Where fingerprints are stored."""

    @property
    def one_space(self) -> bool:
        """Whether at least one target answered, and all that did serve one space, or were accepted for it."""
        answered = [side for side in self.targets if side.answered]
        unusable = [side for side in answered if side.rows is None or (side.faults and not side.accepted)]
        return bool(answered) and not unusable and not self.different

    @property
    def different(self) -> list[Pair]:
        """The pairs that differ and were not accepted."""
        return [pair for pair in self.pairs if pair.verdict == "different" and not pair.accepted]

    def accept(self, label: str) -> Fingerprint:
        """Store a target's vectors as accepted for its space; returns the fingerprint that they were accepted beside.

        Raises:
            ConfigError: the chain has no such target, or its server reports that it serves another space.
            GatewayError: the reason why it did not answer.
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
        """Return the fingerprint for a space that has no fingerprint: from any side but the one that is accepted."""
        others = [
            side
            for side in (*self.others, *self.targets)
            if side.rows is not None and side.space.id == accepted.space.id and side is not accepted
        ]
        side = min(others, key=lambda each: each.authority != "files", default=accepted)
        assert side.rows is not None
        return Fingerprint(side.space, side.authority, side.name, side.rows)

    def index(self, path: str | Path) -> IndexReport:
        """Return the lock of the index in a folder, and which targets may open it. Raises ConfigError."""
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
        """Return a dict for JSON."""
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
    """Return the lock of the index in a folder. Raises ConfigError if there is no folder, or the lock cannot be read."""
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
    """Return what to do about a cause, besides accepting it.

    Args:
        cause: one of a comparison's causes.
        space: the space that the target should serve.
    """
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
    """Return an error's class and message."""
    return f"{type(error).__name__}: {error.message}"
