"""What every backend is: the join of a wire format and the transport, or of an engine and the chain."""

import dataclasses
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hf_gateway.config import EmbedOptions
from hf_gateway.credentials import Credential, Secret, find
from hf_gateway.drive import Compute, Effects, Send
from hf_gateway.embedding import EmbedRequest
from hf_gateway.engines import sources
from hf_gateway.errors import BatchTooLarge, ConfigError
from hf_gateway.key_policy import Access, HouseRules, KeyRequirement, requirement
from hf_gateway.space import VectorSpace, canonical
from hf_gateway.target import Target, nearest
from hf_gateway.wire.http import HttpRequest, HttpResponse

_ENVELOPE = 4096
"""Bytes left for what stands around the texts in a body."""


@dataclass(frozen=True)
class Report:
    """What a backend found out about its server, for `doctor`. serves: the model, or the models; detail: one line more."""

    serves: Sequence[str] = ()
    detail: str = ""


class Backend:
    """One target, ready to be asked. Makes no connection and loads nothing until then.

    A subclass gives `embed` and `probe` as generators that yield `Send` and `Compute` (see `drive.py`), so that the same
    lines serve blocking and async callers.
    """

    kind: ClassVar[str]
    option_names: ClassVar[frozenset[str]] = frozenset()
    """What may stand in `Target.options`."""
    tuning_options: ClassVar[frozenset[str]] = frozenset()
    """Which of them change speed or way only, and no vector; they stay out of identities."""
    max_bytes: ClassVar[int] = 2_000_000
    """Bytes of one request's body; what is longer is cut into several."""

    def __init__(
        self,
        target: Target,
        options: EmbedOptions,
        *,
        given_key: Secret | None = None,
        rules: HouseRules = HouseRules(),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Take the target and the chain's options; given_key is the class's key, when it is meant for this target."""
        for name in target.options:
            if name not in self.option_names:
                known = nearest(name, set(self.option_names)) if self.option_names else "; this kind has none"
                raise ConfigError(f"target {target.label!r} has no option {name!r}{known}")
        self.target = target
        self.options = options
        self.environment = environment
        self._given_key = given_key
        self._rules = rules
        self._space: VectorSpace | None = None

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
        """Tokens of the longest text it takes, or None where nobody said."""
        return self.space().max_tokens

    @property
    def key_url(self) -> str | None:
        """The URL that the key is for."""
        return self.url

    def credential(self) -> Credential | None:
        """Find the key in force now, or None."""
        return find(self.key_url, bound=self.target.credential, given=self._given_key, environment=self.environment)

    def key_requirement(self, access: Access = "unknown") -> KeyRequirement:
        """Say whether a key is needed, and why."""
        return requirement(self.target, access, self._rules)

    def space(self) -> VectorSpace:
        """Return the space that is declared for this target: by the target itself, the model's files, the chain's options.

        Reads files of this machine at most; what nobody says is None.
        """
        if self._space is None:
            self._space = self._declared_space()
        return self._space

    def _declared_space(self) -> VectorSpace:
        declared = self.model_space()
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
        return dataclasses.replace(declared, **changes)

    def model_space(self) -> VectorSpace:
        """Return the model's space before the chain's options change it."""
        target = self.target
        named = VectorSpace(self.space_model(), target.revision)
        if target.model is not None and (files := sources.find(named.model, target.revision)) is not None:
            named = sources.describe(files, named.model, target.revision)
        return target.space.merged(named) if target.space is not None else named

    def space_model(self) -> str:
        """Return the model's name as spaces know it; a server whose model nobody named stands for itself."""
        return canonical(self.target.model) if self.target.model else self.target.label

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed; returns an `EmbedAnswer` with the model's whole vectors. Raises GatewayErrors."""
        raise NotImplementedError

    def probe(self) -> Effects:
        """Ask the target what it serves, without having it compute anything; returns a `Report`."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what is held."""

    def prompted(self, request: EmbedRequest) -> list[str]:
        """Put the role's prompt before each text, as sentence-transformers does; for servers that are told no role."""
        space = self.space()
        prompt = space.query_prompt if request.role == "query" else space.document_prompt
        return [prompt + text for text in request.texts] if prompt else list(request.texts)

    def check_count(self, request: EmbedRequest, max_texts: int) -> None:
        """Have the chain cut a batch of more texts than are taken at once. Raises BatchTooLarge."""
        if len(request.texts) > max_texts:
            raise BatchTooLarge(
                f"takes {max_texts} texts at once", max_texts=max_texts, max_bytes=self.max_bytes - _ENVELOPE
            )

    def ask(self, request: HttpRequest) -> Generator[Send | Compute, HttpResponse, HttpResponse]:
        """Send with the target's key, if there is one for that URL. Raises BatchTooLarge for a body of too many bytes."""
        if request.body is not None and len(request.body) > self.max_bytes:
            raise BatchTooLarge(f"takes {self.max_bytes} bytes at once", max_bytes=self.max_bytes - _ENVELOPE)
        response = yield Send(request, self.credential())
        return response
