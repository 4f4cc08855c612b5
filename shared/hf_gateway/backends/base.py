"""What every backend is: the join of a wire format and the transport, or of an engine and the chain."""

import dataclasses
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, ClassVar, Protocol

from hf_gateway.backends.option_types import check_options
from hf_gateway.backends.stream_support import StreamSupport, is_whole_answer, refuses_stream
from hf_gateway.chain.effects import Emit
from hf_gateway.engines import sources
from hf_gateway.errors import AttemptTimedOut, BatchTooLarge, ConfigError, ConnectFailed, GatewayError, did_you_mean
from hf_gateway.keys.credentials import Credential, find_credential
from hf_gateway.keys.policy import Access, KeyPolicyOverrides, KeyRequirement, requirement
from hf_gateway.runtime.effects import Effects, Open, Opened, Read, Send
from hf_gateway.settings.chat import ChatOptions
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.chat import AnswerBuilder, ChatEvent, ChatRequest
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.http import HttpRequest, HttpResponse, json_size
from hf_gateway.values.secret import Secret
from hf_gateway.values.target import Target
from hf_gateway.values.vector_space import VectorSpace, canonical
from hf_gateway.values.wording import quantity
from hf_gateway.wire.hf_router import Capabilities

_ENVELOPE_BYTES = 4096
"""Bytes left for what stands around the texts in a body."""
BATCH_LIMIT_LIFETIME_S = 60.0
"""Seconds for which a refusal of a batch is remembered: the server may be another one by then, and asking costs a refusal."""
USAGE_GRACE_S = 2.0
"""Seconds after the finish reason for the count of tokens to come."""
BODY_END_TIMEOUT_S = 0.1
"""Seconds after a stream's own last word for the end of its body, with which its connection can be used again."""


class StreamDecoder(Protocol):
    """A wire's reader of streamed answers. finished: a finish reason was there; done: nothing more will come.

    starts: the bytes of which one is the first of such a stream.
    """

    starts: ClassVar[bytes]
    finished: bool

    @property
    def done(self) -> bool:
        """Whether the stream's own last word was there."""

    def feed(self, data: bytes) -> Iterable[ChatEvent]:
        """Take bytes, give what they say."""

    def end(self) -> Iterable[ChatEvent]:
        """Give what was still open when the stream ended."""


@dataclass(frozen=True)
class ProbeReport:
    """What a backend found out about its server, for `doctor`.

    serves: the model, or the models; detail: one line more; access: who may download the model, where the Hub was asked.
    """

    serves: Sequence[str] = ()
    detail: str = ""
    access: Access = "unknown"


class ObservedBatchLimit:
    """What a server refused to take at once, for BATCH_LIMIT_LIFETIME_S seconds. Thread-safe."""

    def __init__(self) -> None:
        """Know nothing."""
        self._texts: int | None = None
        self._about: tuple[int, int] | None = None
        self._until = 0.0

    @property
    def texts(self) -> int | None:
        """How many texts it takes by its own word."""
        return self._texts if monotonic() < self._until else None

    def note_refusal(self, count: int, size: int, most: int | None) -> None:
        """Take a refusal of so many texts, of so many bytes together; most: what it takes, if it said so."""
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
        """Return into how many texts a batch is to be cut that is like what was refused without a number; None for no need.

        It is like that if it has as many texts and as many bytes, since nobody said which of them were too many.
        """
        about = self._about if monotonic() < self._until else None
        if about is None or count <= about[0] or (whole := size()) <= about[1]:
            return None
        return max(about[0], count * about[1] // whole)


def _size(request: EmbedRequest) -> int:
    return sum(map(json_size, request.texts))


class Backend:
    """One target, ready to be asked. Makes no connection and loads nothing until then.

    A subclass gives `embed`, `chat` or both, and `probe`, as generators that yield the effects of `drive.py`, so that the
    same lines serve blocking and async callers.
    """

    kind: ClassVar[str]
    tasks: ClassVar[frozenset[str]] = frozenset({"embedding"})
    """What it can do."""
    option_names: ClassVar[frozenset[str]] = frozenset()
    """What may stand in `Target.options`."""
    option_types: ClassVar[Mapping[str, str]] = {}
    """What their values are, by name: "whole", "flag", "text" or "object"; what is not named here is not checked."""
    tuning_options: ClassVar[frozenset[str]] = frozenset()
    """Which of them change speed or way only, and no vector; they stay out of identities."""
    max_bytes: int = 2_000_000
    """Bytes of one request's body; what is longer is cut into several."""
    most_texts: int | None = None
    """Texts of one request, as far as nobody has asked the server; None for any number."""

    def __init__(
        self,
        target: Target,
        options: EmbedOptions | ChatOptions,
        *,
        given_key: Secret | None = None,
        rules: KeyPolicyOverrides = KeyPolicyOverrides(),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Take the target and the chain's options; given_key is the class's key, when it is meant for this target."""
        if options.task not in self.tasks:
            raise ConfigError(f"target {target.label!r} serves no {options.task}; it is for {', '.join(self.tasks)}")
        for name in target.options:
            if name not in self.option_names:
                known = did_you_mean(name, set(self.option_names)) if self.option_names else "; this kind has none"
                raise ConfigError(f"target {target.label!r} has no option {name!r}{known}")
        check_options(target.label, target.options, self.option_types)
        self.target = target
        self.options = options
        self.environment = environment
        self._given_key = given_key
        self._rules = rules
        self._model_space: VectorSpace | None = None
        self._credential: Credential | None = None
        self._prepared = False
        self._learnt = ObservedBatchLimit()
        self._streams = StreamSupport(able=target.options.get("stream", True) is not False)

    @property
    def batch_texts(self) -> int | None:
        """Texts that are sent in one request at most, as far as it is known; None for any number."""
        known = [most for most in (self.most_texts, self._learnt.texts) if most is not None]
        return min(known, default=None)

    @property
    def url(self) -> str | None:
        """Where requests go, or None for what stays in this process."""
        return self.target.url

    @property
    def account(self) -> str | None:
        """Whom a call is billed to, or None for nobody."""
        return None

    @property
    def context(self) -> int | None:
        """Tokens of the longest text, or conversation, that it takes; None where nobody said."""
        return self.space().max_tokens if self.options.task == "embedding" else None

    def capabilities(self, *, look_up: bool = False) -> Capabilities:  # noqa: ARG002 - for those that can look it up
        """Say what is known of the model here. look_up: a catalogue may be asked over the network, for seconds at most."""
        return Capabilities(context=self.context)

    @property
    def key_url(self) -> str | None:
        """The URL that the key is for."""
        return self.url

    def credential(self) -> Credential | None:
        """Return the key in force, or None."""
        return self._credential if self._prepared else self._find_credential()

    def prepare(self) -> None:
        """Read what lies in files (the model's description, a login), which an event loop must not do.

        Called before each request, off the loop for async ones; what was read is believed until the next time.
        """
        if self.options.task == "embedding":
            self.model_space()
        self._credential = self._find_credential()
        self._prepared = True

    def _find_credential(self) -> Credential | None:
        return find_credential(
            self.key_url, bound=self.target.credential, given=self._given_key, environment=self.environment
        )

    def key_requirement(self, access: Access = "unknown") -> KeyRequirement:
        """Say whether a key is needed, and why."""
        return requirement(self.target, access, self._rules)

    @property
    def embed_options(self) -> EmbedOptions:
        """The chain's options, which are those for embeddings."""
        assert isinstance(self.options, EmbedOptions)
        return self.options

    def space(self) -> VectorSpace:
        """Return the space that is declared for this target: by the target itself, the model's files, the chain's options.

        Reads files of this machine at most; what nobody says is None.
        """
        options = self.embed_options
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
        """Return the model's space before the chain's options change it."""
        if self._model_space is None:
            self._model_space = self.read_model_space()
        return self._model_space

    def read_model_space(self) -> VectorSpace:
        """Find out the model's space, from the target and from files of this machine."""
        target = self.target
        named = VectorSpace(self.space_model(), target.revision)
        if target.model is not None and (files := self.find_files(named.model)) is not None:
            named = sources.space_of(files, named.model, target.revision)
        return target.space.merged(named) if target.space is not None else named

    def find_files(self, model: str) -> sources.ModelFiles | None:
        """Return the model's files on this machine; None also for a name that only the server knows."""
        return sources.find_served(model, self.target.revision)

    def space_model(self) -> str:
        """Return the model's name as spaces know it; a server whose model nobody named stands for itself."""
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
        """Whether one request may have texts of both roles: the prompts are put here, not by the server."""
        return True

    def served_space(self) -> Effects:
        """Ask the target which space it serves, as far as it says; returns a `VectorSpace`, or None."""
        yield from ()
        return None

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed; returns an `EmbedAnswer` with the model's whole vectors. Raises GatewayErrors."""
        raise NotImplementedError

    def chat(self, request: ChatRequest, builder: AnswerBuilder) -> Effects:
        """Answer: put every `ChatEvent` into `builder` and yield an `Emit` of what it gives back, where that has content.

        `request.model` is the model to ask. Raises GatewayErrors.
        """
        raise NotImplementedError

    def probe(self) -> Effects:
        """Ask the target what it serves, with one word computed at the most; returns a `Report`."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what is held."""

    def add_prompts(self, request: EmbedRequest) -> list[str]:
        """Put the role's prompt before each text, as sentence-transformers does; for servers that are told no role."""
        space = self.space()
        prompt = space.query_prompt if request.role == "query" else space.document_prompt
        if prompt is None and request.role == "query":
            notice_once(
                f"{self.target.label}: whether {space.model} wants a prompt before queries is not known on this machine, "
                'so none is put; pass query_prompt= to say it ("" for none)'
            )
        texts = [prompt + text for text in request.texts] if prompt else list(request.texts)
        if request.documents:
            before = space.document_prompt or ""
            texts[-request.documents :] = [before + text for text in request.texts[-request.documents :]]
        return texts

    def note_batch_limit(self, limit: BatchTooLarge, request: EmbedRequest) -> None:
        """Remember what the server refused to take at once, or it would be asked in vain for every batch of a long list."""
        if limit.status is not None:
            self._learnt.note_refusal(len(request.texts), _size(request), limit.max_texts)

    def check_count(self, request: EmbedRequest) -> None:
        """Have the chain cut a batch of more texts than are taken at once. Raises BatchTooLarge."""
        count, most = len(request.texts), self.batch_texts
        if most is None or count <= most:
            most = self._learnt.fewer(count, lambda: _size(request))
        if most is not None and count > most:
            raise BatchTooLarge(
                f"takes {quantity(most, 'text')} at once", max_texts=most, max_bytes=self.max_bytes - _ENVELOPE_BYTES
            )

    def ask(self, request: HttpRequest, credential: Credential | None = None) -> Generator[Any, Any, HttpResponse]:
        """Send with a key, the target's own if none is given, and only to that key's origin.

        Raises BatchTooLarge for a body of too many bytes.
        """
        if request.body is not None and len(request.body) > self.max_bytes and self.options.task == "embedding":
            raise BatchTooLarge(f"takes {self.max_bytes} bytes at once", max_bytes=self.max_bytes - _ENVELOPE_BYTES)
        response: HttpResponse = yield Send(request, credential or self.credential())
        return response

    def send_chat(
        self,
        request: ChatRequest,
        builder: AnswerBuilder,
        encode: Callable[[ChatRequest], HttpRequest],
        whole: Callable[[HttpResponse], ChatEvent],
        pieces: Callable[[Mapping[str, str]], StreamDecoder],
    ) -> Effects:
        """Send a chat request and gather its answer; what a server refuses to stream is asked for at once as a whole.

        Args:
            request: what is asked; `stream` says whether in pieces.
            builder: takes the answer.
            encode: makes the HTTP request.
            whole: reads an answer that comes at once.
            pieces: makes the reader of a stream from its headers.
        """
        if request.stream and self._streams.may_stream(request):
            try:
                if (yield from self._stream(encode(request), builder, whole, pieces)):
                    self._streams.note_whole_answer(request)
                return
            except GatewayError as failure:
                if builder.has_content or not refuses_stream(failure):
                    raise
                self._streams.note_whole_answer(request)
        response = yield from self.ask(encode(dataclasses.replace(request, stream=False)))
        yield from emit_content(builder, [whole(response)])
        builder.closed = True

    def _stream(
        self,
        message: HttpRequest,
        builder: AnswerBuilder,
        whole: Callable[[HttpResponse], ChatEvent],
        pieces: Callable[[Mapping[str, str]], StreamDecoder],
    ) -> Effects:
        """Open a stream and gather its pieces; returns whether the answer came whole, since servers ignore what was asked for."""
        opened: Opened = yield Open(message, self.credential())
        decoder, answered = pieces(opened.headers), 200 <= opened.status < 300
        data: bytes | None = (yield Read(opened.source)) if answered else b""
        if not answered or is_whole_answer(opened.headers.get("content-type", ""), data or b"", decoder.starts):
            response = yield from self._read_whole(opened, data)
            yield from emit_content(builder, [whole(response)])
            builder.closed = True
            return True
        while True:
            yield from emit_content(builder, decoder.end() if data is None else decoder.feed(data))
            builder.closed = decoder.done
            if data is None:
                return False
            within = BODY_END_TIMEOUT_S if decoder.done else USAGE_GRACE_S if decoder.finished else None
            try:
                data = yield Read(opened.source, within)
            except (AttemptTimedOut, ConnectFailed):
                if decoder.finished or decoder.done:
                    return False
                raise

    def _read_whole(self, opened: Opened, start: bytes | None) -> Generator[Any, Any, HttpResponse]:
        """Read a body to its end. start: what was read of it before, None for its end."""
        body, data = bytearray(), start
        while data is not None:
            body += data
            data = yield Read(opened.source)
        credential = self.credential()
        # Some servers quote the key they refuse.
        kept = bytes(body).replace(credential.secret.reveal().encode(), b"***") if credential else bytes(body)
        return HttpResponse(opened.status, opened.headers, kept)


def emit_content(builder: AnswerBuilder, events: Iterable[ChatEvent]) -> Generator[Emit, None, None]:
    """Gather events, and hand on what of them a reader would see."""
    for event in events:
        piece = builder.add(event)
        if piece.has_content:
            yield Emit(piece)
