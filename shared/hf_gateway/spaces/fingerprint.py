"""Fingerprints: the vectors that a vector space gives to eight fixed texts, measured once and compared from then on.

A name says which model a server claims to run. Two servers of one model still differ if one pools differently, omits a prompt,
does not normalise, truncates long texts elsewhere, or computes with eight bits; the vectors of the canary texts show it. They are
stored under HF_GATEWAY_HOME, one file per space, and shared by all processes of a user.
"""

import base64
import dataclasses
import datetime as dt
import hashlib
import json
import math
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from hf_gateway.errors import ConfigError
from hf_gateway.storage.files import home, write_atomically
from hf_gateway.values.embedding import Role
from hf_gateway.values.vector_space import VectorSpace

VERSION = 1
"""Of the canary texts and of the file's form; files of another version are measured again."""

CANARIES = (
    "cat",
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France, and how many people live there?",
    "def add(a: int, b: int) -> int:\n    return a + b  # 2 + 2 == 4\n",
    "Größe, naïve café, Łódź; Ελληνικά και русский текст.",
    "深層学習は、データから特徴を学ぶ。 كيف حالك اليوم؟",
    "Contract No. 2024-0815: €1,299.00 due 31/12/2024 — see § 4(2), page 17 🙂",
    " ".join(f"Sentence {number} of a long text that goes on beyond what small models read." for number in range(60)),
)
LONG_CANARIES = len(CANARIES) - 1
"""The index of the text that models with a short context truncate; it is compared only if texts may be truncated."""

MIN_SAME_COSINE = 0.999
"""Cosine from which two vectors count as the same: float16, bfloat16 and other kernels stay above, 8-bit weights below."""
MAX_NORM_DIFFERENCE = 0.01
"""Relative difference of lengths that is accepted."""
MIN_RELATED_COSINE = 0.85
"""Cosine from which two models count as related: 8-bit weights stay above, another pooling is far below."""

UNMEASURED = "none of the texts could be measured"
SHUFFLED = "the same in another order: the rows do not belong to the texts they stand at"
CUT_ELSEWHERE = "the same, but long texts are cut at another place"
REFUSED_OR_CUT = "the same, but one refuses a long text and the other cuts it: where texts are cut, they would part"
QUANTISED = (
    "the same model quantised, or another revision, or another prompt: every direction is near, none is the same"
)
FOREIGN = "another model, or pooled another way: the directions have nothing to do with each other"
FOREIGN_TO_FILES = "another model: no other pooling, prompt or scaling of this one gives such vectors"

Row = tuple[float, ...]
Rows = Mapping[Role, tuple[Row | None, ...]]
"""For each role the vectors of the canaries, in order; None for one that was not measured, REFUSED for one that was refused."""
REFUSED: Row = ()
"""For a text that is longer than the target accepts, although it might have been truncated."""


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two measurements."""

    worst: Mapping[str, float]
    """The lowest cosine of any canary, by role."""
    norm: float
    """The largest relative difference of lengths."""
    causes: tuple[str, ...] = ()
    """What probably differs, the most likely first, in words for users."""

    @property
    def same(self) -> bool:
        """Whether vectors of the two may be mixed."""
        return not self.causes


@dataclass(frozen=True)
class Fingerprint:
    """The canaries' vectors in one space."""

    space: VectorSpace
    """The space."""
    authority: Literal["files", "server"]
    """"files" if the model's own files made them in this process, "server" if they are those of the first server that answered,
    which cannot be verified."""
    source: str
    """Label of the target."""
    rows: Rows
    """The vectors by role."""
    taken: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))
    """When they were measured, in ISO 8601."""
    accepted: Mapping[str, Rows] = field(default_factory=dict)
    """Measurements of targets that a user accepted as the same space, by label."""

    @property
    def origin(self) -> str:
        """What made it, and when, in words."""
        files = "the model's own files"
        return f"{files if self.authority == 'files' else f'{self.source}, the first that answered'} (measured {self.taken})"

    @property
    def says_where_texts_are_cut(self) -> bool:
        """Whether the long canary was measured."""
        return self.rows["document"][LONG_CANARIES] is not None

    def completed_with(self, rows: Rows) -> Self:
        """Return it with missing rows filled from another measurement of the same space; itself if none is missing."""
        whole = {
            role: tuple(own if known is None else known for known, own in zip(kept, rows.get(role, kept), strict=True))
            for role, kept in self.rows.items()
        }
        return self if whole == dict(self.rows) else dataclasses.replace(self, rows=whole)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; vectors are base64 of little-endian float32."""
        return {
            "version": VERSION,
            "space": self.space.to_dict(),
            "authority": self.authority,
            "source": self.source,
            "taken": self.taken,
            "rows": _rows_to_base64(self.rows),
            "accepted": {label: _rows_to_base64(rows) for label, rows in self.accepted.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned. Raises ValueError, KeyError or TypeError for anything else."""
        if data["version"] != VERSION:
            raise ValueError(f"a fingerprint of version {data['version']}")
        return cls(
            VectorSpace.from_dict(data["space"]),
            "files" if data["authority"] == "files" else "server",
            str(data["source"]),
            _rows_from_base64(data["rows"]),
            str(data["taken"]),
            {label: _rows_from_base64(rows) for label, rows in data.get("accepted", {}).items()},
        )


class Store:
    """The fingerprints on disk. Safe for many processes: files are replaced whole, and the first writer wins."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use a folder; by default the one under HF_GATEWAY_HOME."""
        self._folder = folder or home() / "fingerprints"

    def path(self, space: VectorSpace) -> Path:
        """Return the file of a space's fingerprint."""
        return self._folder / f"{hashlib.sha256(space.id.encode()).hexdigest()[:32]}.json"

    def load(self, space: VectorSpace) -> Fingerprint | None:
        """Return a space's fingerprint; None if the file is missing, damaged or of another version."""
        try:
            found = Fingerprint.from_dict(json.loads(self.path(space).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError):
            return None
        return found if found.space.id == space.id else None

    def keep_first(self, fingerprint: Fingerprint) -> Fingerprint:
        """Store a fingerprint unless another process was first; returns the one that is stored. Raises OSError."""
        path = self.path(fingerprint.space)
        if (known := self.load(fingerprint.space)) is not None:
            return known
        path.parent.mkdir(parents=True, exist_ok=True)
        passing = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            passing.write_bytes(_bytes(fingerprint))
            try:
                os.link(passing, path)  # fails if it exists, unlike a rename
            except FileExistsError:
                if (known := self.load(fingerprint.space)) is not None:
                    return known
                passing.replace(path)  # damaged, or of another version
            except OSError:
                passing.replace(path)  # a file system without links
        finally:
            passing.unlink(missing_ok=True)
        return fingerprint

    def replace(self, fingerprint: Fingerprint) -> None:
        """Store a fingerprint, replacing the existing one. Raises OSError."""
        write_atomically(self.path(fingerprint.space), _bytes(fingerprint))

    def accept(self, space: VectorSpace, label: str, rows: Rows) -> None:
        """Accept a target's vectors as this space's, whatever they are.

        Args:
            space: the space.
            label: the target's label.
            rows: its vectors.

        Raises:
            ConfigError: the space has no fingerprint yet.
            OSError: the file cannot be written.
        """
        known = self.load(space)
        if known is None:
            raise ConfigError(f"there is no fingerprint of {space.model} beside which vectors could be accepted")
        self.replace(dataclasses.replace(known, accepted={**known.accepted, label: rows}))


def compare(reference: Rows, measured: Rows, *, cut: bool, variants: Mapping[str, Rows] | None = None) -> Comparison:
    """Compare a target's vectors with a space's.

    Args:
        reference: the space's vectors.
        measured: the target's vectors.
        cut: whether texts may be truncated, so that the long canary is compared.
        variants: the vectors that the same model would give with one setting changed, by the words for that setting; used to
            name the cause.
    """
    worst: dict[str, float] = {}
    norm = 0.0
    for role, rows in measured.items():
        pairs = _pairs(reference.get(role, ()), rows, cut)
        if not pairs:
            continue
        if len(pairs[0][0]) != len(pairs[0][1]):
            sizes = f"{len(pairs[0][1])} numbers a vector, and the space has {len(pairs[0][0])}"
            return Comparison({role: 0.0}, 1.0, (f"another dimension: {sizes}",))
        worst[role] = min(_cosine(one, other) for one, other in pairs)
        norm = max(norm, *(_norm_difference(one, other) for one, other in pairs))
    if worst and min(worst.values()) >= MIN_SAME_COSINE and norm <= MAX_NORM_DIFFERENCE:
        return Comparison(worst, norm, (REFUSED_OR_CUT,) if cut and _refused_by_one(reference, measured) else ())
    return Comparison(worst, norm, tuple(_causes(reference, measured, worst, cut, variants or {})))


def _refused_by_one(reference: Rows, measured: Rows) -> bool:
    """Return whether one side refused the long text, and the other gave the vector of a truncated text, which may differ."""
    pairs = [
        (reference[role][LONG_CANARIES], rows[LONG_CANARIES])
        for role, rows in measured.items()
        if len(rows) == len(reference.get(role, ())) == len(CANARIES)
    ]
    return any(one is not None and other is not None and (not one) != (not other) for one, other in pairs)


def _causes(
    reference: Rows, measured: Rows, worst: Mapping[str, float], cut: bool, variants: Mapping[str, Rows]
) -> list[str]:
    if not worst:
        return [UNMEASURED]
    exact, directions = _variants_met(measured, cut, variants)
    if exact:
        return [f"the same {words}" for words in exact]
    if min(worst.values()) >= MIN_SAME_COSINE:
        return [_lengths_cause(reference, measured)]
    found = [f"the same {words}, and of other lengths" for words in directions]
    found += _prompt_causes(reference, measured, cut)
    if all(_shuffled(reference.get(role, ()), rows) for role, rows in measured.items()):
        found.append(SHUFFLED)
    if cut and min(_worst_without_long(reference, measured).values(), default=0.0) >= MIN_SAME_COSINE:
        found.append(CUT_ELSEWHERE)
    if not found and min(worst.values()) >= MIN_RELATED_COSINE:
        found.append(QUANTISED)
    return found or [FOREIGN_TO_FILES if variants else FOREIGN]


def _variants_met(measured: Rows, cut: bool, variants: Mapping[str, Rows]) -> tuple[list[str], list[str]]:
    """Return the words for the variants that were measured, and for those of which only the directions agree."""
    exact, directions = [], []
    for words, rows in variants.items():
        found = compare(rows, measured, cut=cut)
        if found.same:
            exact.append(words)
        elif min(found.worst.values(), default=0.0) >= MIN_SAME_COSINE:
            directions.append(words)
    return exact, directions


def _lengths_cause(reference: Rows, measured: Rows) -> str:
    unit = [
        all(abs(math.hypot(*row) - 1) <= MAX_NORM_DIFFERENCE for vectors in rows.values() for row in vectors if row)
        for rows in (reference, measured)
    ]
    if unit == [True, False]:
        return "the same without normalisation: the directions agree, and the vectors are not of length 1"
    if unit == [False, True]:
        return "the same with normalisation: the directions agree, and the vectors are scaled to length 1"
    return "the same with other lengths: the directions agree"


def _prompt_causes(reference: Rows, measured: Rows, cut: bool) -> list[str]:
    """Name the roles whose vectors are those of the other role: the prompt is missing, or it is the other role's."""
    found: dict[Role, str] = {}
    roles: tuple[tuple[Role, Role], ...] = (("query", "document"), ("document", "query"))
    for role, other in roles:
        own, theirs = reference.get(role), reference.get(other)
        if own is None or theirs is None or role not in measured:
            continue
        distinct = min((_cosine(a, b) for a, b in _pairs(own, theirs, cut)), default=1.0) < MIN_SAME_COSINE
        swapped = min((_cosine(a, b) for a, b in _pairs(theirs, measured[role], cut)), default=0.0) >= MIN_SAME_COSINE
        if distinct and swapped:
            found[role] = f"the same without the {role} prompt: a {role} gets the vector of a {other}"
    if len(found) == 2:
        return ["the same with the prompts of queries and documents exchanged"]
    return list(found.values())


def _shuffled(reference: Sequence[Row | None], rows: Sequence[Row | None]) -> bool:
    """Whether each vector is one of the reference's, and not all are at their indexes."""
    places = []
    for row in rows:
        near = [
            place
            for place, known in enumerate(reference)
            if row and known and len(row) == len(known) and _cosine(known, row) >= MIN_SAME_COSINE
        ]
        places.append(near[0] if near else None)
    hits = [place for place in places if place is not None]
    return len(hits) >= len(CANARIES) - 1 and hits != sorted(hits)


def _worst_without_long(reference: Rows, measured: Rows) -> dict[str, float]:
    return {
        role: min((_cosine(a, b) for a, b in _pairs(reference.get(role, ()), rows, False)), default=0.0)
        for role, rows in measured.items()
    }


def _pairs(one: Sequence[Row | None], other: Sequence[Row | None], cut: bool) -> list[tuple[Row, Row]]:
    found = []
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left and right and (cut or place != LONG_CANARIES):
            found.append((left, right))
    return found


def _cosine(one: Row, other: Row) -> float:
    if len(one) != len(other):
        return 0.0
    lengths = math.sqrt(math.sumprod(one, one) if hasattr(math, "sumprod") else sum(a * a for a in one)) * math.sqrt(
        sum(b * b for b in other)
    )
    # Two vectors of nothing are the same; only sparse ones can be.
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else float(one == other)


def _norm_difference(one: Row, other: Row) -> float:
    left, right = math.sqrt(sum(a * a for a in one)), math.sqrt(sum(b * b for b in other))
    return abs(left - right) / max(left, right, 1e-30)


def _bytes(fingerprint: Fingerprint) -> bytes:
    return json.dumps(fingerprint.to_dict()).encode()


def _rows_to_base64(rows: Rows) -> dict[str, list[str | None]]:
    return {
        role: [
            None if row is None else base64.b64encode(_little(array("f", row)).tobytes()).decode() for row in vectors
        ]
        for role, vectors in rows.items()
    }


def _rows_from_base64(data: Mapping[str, Sequence[str | None]]) -> Rows:
    found: dict[Role, tuple[Row | None, ...]] = {}
    for role in ("document", "query"):
        if role in data:
            if len(data[role]) != len(CANARIES):
                raise ValueError("not as many vectors as canaries")
            found[role] = tuple(None if text is None else _row(text) for text in data[role])
    return found


def _row(text: str) -> Row:
    numbers = array("f")
    numbers.frombytes(base64.b64decode(text, validate=True))
    return tuple(_little(numbers))


def _little(numbers: "array[float]") -> "array[float]":
    """Convert floats between this machine's byte order and little-endian, in either direction."""
    if array("H", [1]).tobytes()[0] == 0:
        numbers.byteswap()
    return numbers
