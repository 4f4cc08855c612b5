"""Request canaries: texts of known vectors within a caller's own request, so that each answer proves which model gave it.

Behind one address there may be several servers, and not all of them need have the same model: a check of its own may meet
another one than the request that follows it. A canary in the same request meets the one that embeds the texts.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hf_gateway.errors import BatchTooLarge
from hf_gateway.spaces.fingerprint import CANARIES, LONG_CANARIES, Comparison, Row, Rows, compare
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest, Role
from hf_gateway.values.vectors import Vectors

QUERY_TEXTS = 32
"""Queries to one target after which the next request has a canary; a request of documents always has one."""
FULL_REQUESTS = 8
"""Requests in a row that may be as large as the target takes, with no room for a canary; the next one is cut."""
MIN_ROOM = 4
"""Texts that a target must take at once for canaries to ride along."""
SHORT_TEXT_CHARS = 2000
"""A text of at most so many characters that is refused beside a canary, and taken alone, tells that texts come one by one."""
MAX_IDENTITIES = 64
"""Different words of a target about itself, beyond which they tell nothing: it gives each answer another one."""

Canary = tuple[Role, int]
"""A role, and the place of a text among the canaries."""
Identity = tuple[str | None, str | None]
"""What an answer says of who gave it: the model, and the server."""


@dataclass
class CanaryRecord:
    """What the canaries of one target's requests have shown; changed under its guard's lock."""

    unproven: int = QUERY_TEXTS
    """Texts since the last canary; a target's first request always has one."""
    full: int = 0
    """Requests in a row that had no room for a canary."""
    turn: int = 0
    """Which canary is next."""
    takes_one: bool = False
    """Whether the target has refused two texts at once."""
    identities: set[Identity] = field(default_factory=set)
    """Who has been proven."""
    proven: dict[Canary, bytes] = field(default_factory=dict)
    """The last vector, as float32, of each canary that was compared and found right: servers mostly give the very same again."""


def room_for(most: int | None, count: int) -> int | None:
    """Return how many texts of a caller a request takes beside so many canaries, where the target takes `most`."""
    return most if most is None or most < MIN_ROOM else most - count


def canaries_for(
    request: EmbedRequest, record: CanaryRecord, rows: Rows, *, both_roles: bool, most: int | None, always: bool = False
) -> tuple[Canary, ...]:
    """Choose the canaries for a request, none where none is due.

    Args:
        request: what the caller wants embedded.
        record: what the target's canaries have shown so far; changed.
        rows: what the canaries' vectors must be.
        both_roles: whether a request for queries has a document among its canaries, since the vectors of the two roles were
            measured by requests of their own, which may have met two servers.
        most: texts that the target takes at once.
        always: whether queries always have canaries, as documents do, since a cache would give a wrong vector again.

    Raises:
        BatchTooLarge: the request has more texts than leave room, and is to be cut.
    """
    count = len(request.texts)
    due = always or request.role == "document" or record.unproven + count > QUERY_TEXTS
    if not due or record.takes_one or (most is not None and most < MIN_ROOM):
        record.unproven += count
        return ()
    roles: tuple[Role, ...] = (request.role, "document") if both_roles and request.role == "query" else (request.role,)
    if most is not None and count + len(roles) > most:
        record.unproven += count
        record.full += 1
        if count > most or record.full >= FULL_REQUESTS:
            raise BatchTooLarge(f"takes {most} texts at once, canaries among them", max_texts=most)
        return ()
    for _ in range(LONG_CANARIES):
        record.turn += 1
        chosen = tuple((role, record.turn % LONG_CANARIES) for role in roles)
        if all(rows.get(role, rows["document"])[place] for role, place in chosen):
            return chosen
    return ()


def with_canaries(request: EmbedRequest, canaries: Sequence[Canary]) -> EmbedRequest:
    """Put canaries behind the texts of a request; errors that name a text by its place stay right."""
    texts = [*request.texts, *(CANARIES[place] for _, place in canaries)]
    return replace(request, texts=texts, documents=sum(role != request.role for role, _ in canaries))


def without_canaries(answer: EmbedAnswer, canaries: Sequence[Canary]) -> tuple[EmbedAnswer, list[bytes]]:
    """Part the vectors of the caller's texts from those of the canaries behind them, which come as float32."""
    data, dim = answer.vectors.data, answer.vectors.dim
    first = len(data) - len(canaries) * dim
    found = [data[start : start + dim].tobytes() for start in range(first, len(data), dim)]
    return replace(answer, vectors=Vectors(data[:first], dim)), found


def difference(
    canaries: Sequence[Canary], found: Sequence[bytes], rows: Rows, record: CanaryRecord
) -> Comparison | None:
    """Compare what came for canaries with what must come; None where they are the same."""
    if all(record.proven.get(canary) == data for canary, data in zip(canaries, found, strict=True)):
        return None
    reference: dict[Role, tuple[Row | None, ...]] = {}
    measured: dict[Role, tuple[Row | None, ...]] = {}
    for (role, place), data in zip(canaries, found, strict=True):
        reference[role] = (*reference.get(role, ()), rows.get(role, rows["document"])[place])
        measured[role] = (*measured.get(role, ()), tuple(array("f", data)))
    comparison = compare(reference, measured, cut=False)
    if not comparison.same:
        return comparison
    record.proven.update(zip(canaries, found, strict=True))
    return None
