"""Base of all embedding abilities: batch limits, the vector space, prompts."""

import dataclasses
from collections.abc import Callable, Generator
from time import monotonic
from typing import Any, ClassVar

from hf_gateway.backends.base import Ability, Server
from hf_gateway.engines import sources
from hf_gateway.errors import BatchTooLarge
from hf_gateway.keys.credentials import Credential
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.http import HttpRequest, HttpResponse, json_size
from hf_gateway.values.vector_space import VectorSpace, canonical
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


def _size(request: EmbedRequest) -> int:
    return sum(map(json_size, request.texts))


class EmbeddingAbility(Ability):
    """Embeds texts. A kind's class implements `embed` and `probe`, and overrides what differs."""

    options: EmbedOptions
    max_bytes: ClassVar[int] = 2_000_000
    """Maximum size of one request's body; longer ones are divided."""
    most_texts: int | None = None
    """Maximum texts per request, before the server was asked; None for any number."""

    def __init__(self, server: Server, options: EmbedOptions) -> None:
        super().__init__(server, options)
        self.options = options
        self._model_space: VectorSpace | None = None
        self._learnt = ObservedBatchLimit()

    @property
    def batch_texts(self) -> int | None:
        """Maximum texts per request, as far as it is known; None for any number."""
        known = [most for most in (self.most_texts, self._learnt.texts) if most is not None]
        return min(known, default=None)

    @property
    def context(self) -> int | None:
        """Maximum tokens of a text; None if it is unknown."""
        return self.space().max_tokens

    def prepare(self) -> None:
        """Read the model's description and the key."""
        self.model_space()
        super().prepare()

    def space(self) -> VectorSpace:
        """Return the space that is declared for this target: by the target itself, the model's files, the chain's options.

        Reads only files of this machine; what is not declared is None.
        """
        options = self.options
        changes: dict[str, Any] = {}
        if options.dimensions is not None:
            changes["dimension"] = options.dimensions
        if options.normalize:
            changes["normalized"] = True
        if options.query_prompt is not None:
            changes["query_prompt"] = options.query_prompt
        if options.document_prompt is not None:
            changes["document_prompt"] = options.document_prompt
        return dataclasses.replace(self.model_space(), **changes)

    def model_space(self) -> VectorSpace:
        """Return the model's space before the chain's options are applied."""
        if self._model_space is None:
            self._model_space = self.read_model_space()
        return self._model_space

    def read_model_space(self) -> VectorSpace:
        """Determine the model's space, from the target and from files of this machine."""
        target = self.target
        named = VectorSpace(self.space_model(), target.revision)
        if target.model is not None and (files := self.find_files(named.model)) is not None:
            named = sources.space_of(files, named.model, target.revision)
        return target.space.merged(named) if target.space is not None else named

    def find_files(self, model: str) -> sources.ModelFiles | None:
        """Return the model's files on this machine; None also for a name that only the server knows."""
        return sources.find_served(model, self.target.revision)

    def space_model(self) -> str:
        """Return the model's name in spaces; for a server whose model is not named, the target's label."""
        return canonical(self.target.model) if self.target.model else self.target.label

    @property
    def authoritative(self) -> bool:
        """Whether the model's own files make its vectors, in this process."""
        return False

    @property
    def one_role(self) -> bool:
        """Whether queries and documents get the same vectors here: the same prompt, or none."""
        space = self.space()
        return (space.query_prompt or "") == (space.document_prompt or "")

    @property
    def mixes_roles(self) -> bool:
        """Whether one request may contain texts of both roles: prompts are added here, not by the server."""
        return True

    def served_space(self) -> Effects:
        """Ask the target which space it serves; returns a `VectorSpace` with what it reports, or None."""
        yield from ()
        return None

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed; returns an `EmbedAnswer` with the model's whole vectors. Raises GatewayError."""
        raise NotImplementedError

    def add_prompts(self, request: EmbedRequest) -> list[str]:
        """Add the role's prompt to each text, as sentence-transformers does; for servers without roles."""
        space = self.space()
        prompt = space.query_prompt if request.role == "query" else space.document_prompt
        if prompt is None and request.role == "query":
            notice_once(
                f"{self.target.label}: whether {space.model} wants a prompt before queries is not known on this machine, "
                'so none is put; pass query_prompt= to set it ("" for none)'
            )
        texts = [prompt + text for text in request.texts] if prompt else list(request.texts)
        if request.documents:
            before = space.document_prompt or ""
            texts[-request.documents :] = [before + text for text in request.texts[-request.documents :]]
        return texts

    def note_batch_limit(self, limit: BatchTooLarge, request: EmbedRequest) -> None:
        """Record what the server refused, so that not every batch of a long list is refused first.

        Args:
            limit: the refusal.
            request: the refused batch.
        """
        if limit.status is not None:
            self._learnt.note_refusal(len(request.texts), _size(request), limit.max_texts)

    def check_count(self, request: EmbedRequest) -> None:
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
