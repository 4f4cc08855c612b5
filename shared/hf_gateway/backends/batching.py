"""Base of the abilities that take several texts at once: the limits of a server, by number and bytes."""

from collections.abc import Callable, Generator, Sequence
from time import monotonic
from typing import Any, ClassVar, Protocol

from hf_gateway.backends.base import Ability, Server
from hf_gateway.errors import BatchTooLarge
from hf_gateway.keys.credentials import Credential
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.base import ChainOptions
from hf_gateway.values.http import HttpRequest, HttpResponse, json_size
from hf_gateway.values.wording import quantity

_ENVELOPE_BYTES = 4096
"""Reserved for the rest of a body around the texts."""
BATCH_LIMIT_LIFETIME_S = 60.0
"""How long a refused batch is remembered: the server may be another one later, and another attempt costs one refusal."""


class ObservedBatchLimit:
    """The limit of a batch that a server refused, for BATCH_LIMIT_LIFETIME_S. Safe for threads."""

    def __init__(self) -> None:
        """Start without a limit."""
        self._texts: int | None = None
        self._about: tuple[int, int] | None = None
        self._until = 0.0

    @property
    def texts(self) -> int | None:
        """The maximum number of texts that the server reported."""
        return self._texts if monotonic() < self._until else None

    def note_refusal(self, count: int, size: int, most: int | None) -> None:
        """Record a refused batch.

        Args:
            count: how many texts it had.
            size: their bytes in JSON.
            most: the maximum that the server reported, if it did.
        """
        if count < 2:
            return
        if monotonic() >= self._until:
            self._texts = self._about = None
        if most is not None and 0 < most < count:
            self._texts = min(most, self._texts or most)
        else:
            texts, bytes_ = self._about or (count, size)
            self._about = min(texts, (count + 1) // 2), min(bytes_, size // 2)
        self._until = monotonic() + BATCH_LIMIT_LIFETIME_S

    def fewer(self, count: int, size: Callable[[], int]) -> int | None:
        """Return the size of the parts for a batch like the refused one; None if it need not be divided.

        It is like the refused one if it has as many texts and as many bytes, since the refusal does not say which of them was too
        many.

        Args:
            count: how many texts it has.
            size: returns their bytes in JSON.
        """
        about = self._about if monotonic() < self._until else None
        if about is None or count <= about[0] or (whole := size()) <= about[1]:
            return None
        return max(about[0], count * about[1] // whole)


class Texts(Protocol):
    """A request of several texts."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts that count, in order."""


def _size(request: Texts) -> int:
    return sum(map(json_size, request.texts))


class BatchingAbility(Ability):
    """Sends several texts in one request, and refuses, before anything is sent, more than its server accepts."""

    max_bytes: ClassVar[int] = 2_000_000
    """Maximum size of one request's body; longer ones are divided."""
    most_texts: int | None = None
    """Maximum texts per request, before the server was asked; None for any number."""

    def __init__(self, server: Server, options: ChainOptions) -> None:
        super().__init__(server, options)
        self._learnt = ObservedBatchLimit()

    @property
    def batch_texts(self) -> int | None:
        """Maximum texts per request, as far as it is known; None for any number."""
        known = [most for most in (self.most_texts, self._learnt.texts) if most is not None]
        return min(known, default=None)

    def note_batch_limit(self, limit: BatchTooLarge, request: Texts) -> None:
        """Record what the server refused, so that not every batch of a long list is refused first.

        Args:
            limit: the refusal.
            request: the refused batch.
        """
        if limit.status is not None:
            self._learnt.note_refusal(len(request.texts), _size(request), limit.max_texts)

    def noting_limit(self, request: Texts, answering: Effects) -> Effects:
        """Yield the effects that answer a request, and record a refused batch.

        Args:
            request: the request.
            answering: its effects.
        """
        try:
            return (yield from answering)
        except BatchTooLarge as limit:
            self.note_batch_limit(limit, request)
            raise

    def check_count(self, request: Texts) -> None:
        """Raise BatchTooLarge for a batch of more texts than the server accepts at once."""
        count, most = len(request.texts), self.batch_texts
        if most is None or count <= most:
            most = self._learnt.fewer(count, lambda: _size(request))
        if most is not None and count > most:
            raise BatchTooLarge(
                f"takes {quantity(most, 'text')} at once", max_texts=most, max_bytes=self.max_bytes - _ENVELOPE_BYTES
            )

    def ask(self, request: HttpRequest, credential: Credential | None = None) -> Generator[Any, Any, HttpResponse]:
        """Send a request with a key.

        Args:
            request: the request.
            credential: the key; by default the target's own.

        Raises:
            BatchTooLarge: its body has too many bytes.
        """
        if request.body is not None and len(request.body) > self.max_bytes:
            raise BatchTooLarge(f"takes {self.max_bytes} bytes at once", max_bytes=self.max_bytes - _ENVELOPE_BYTES)
        return self.server.ask(request, credential)
