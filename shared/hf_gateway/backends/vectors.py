"""Base of all abilities that make vectors, dense or sparse: the vector space, prompts."""

import dataclasses
from typing import Any

from hf_gateway.backends.base import Server
from hf_gateway.backends.batching import BatchingAbility
from hf_gateway.engines import saved_space, sources
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.spaces import SpaceOptions
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.vector_space import VectorSpace, canonical


class VectorAbility(BatchingAbility):
    """Makes vectors of texts; the base of `EmbeddingAbility` and `SparseAbility`."""

    options: SpaceOptions

    def __init__(self, server: Server, options: SpaceOptions) -> None:
        super().__init__(server, options)
        self.options = options
        self._model_space: VectorSpace | None = None

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
        if options.query_prompt is not None:
            changes["query_prompt"] = options.query_prompt
        if options.document_prompt is not None:
            changes["document_prompt"] = options.document_prompt
        space = self.model_space()
        return dataclasses.replace(space, **changes) if changes else space

    def model_space(self) -> VectorSpace:
        """Return the model's space before the chain's options are applied."""
        if self._model_space is None:
            self._model_space = self.read_model_space()
        return self._model_space

    def declare(self, space: VectorSpace) -> None:
        """Take a space that the target's server reports for the one of a target that names no model."""
        self._model_space = space

    def read_model_space(self) -> VectorSpace:
        """Determine the model's space, from the target and from files of this machine."""
        target = self.target
        named = VectorSpace(self.space_model(), target.revision)
        if target.model is not None and (files := self.find_files(named.model)) is not None:
            named = saved_space.space_of(files, named.model, target.revision)
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

    @property
    def reported_space(self) -> VectorSpace | None:
        """The space that its answers so far have reported, as far as it can be compared; None if they report none."""
        return None

    def served_space(self) -> Effects:
        """Ask the target which space it serves; returns a `VectorSpace` with what it reports, or None."""
        yield from ()
        return None

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed; returns a `VectorAnswer` with the model's whole vectors. Raises GatewayError."""
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
