"""A target for embeddings, with the checks of every answer."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.errors import BadResponse, InvalidRequest
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.spaces.fingerprint import Row, Rows
from hf_gateway.tasks.vectors import VectorCandidate
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest, Role
from hf_gateway.values.vectors import Vectors


@dataclass
class SeenDimension:
    """The dimension of a chain's first vectors, which all later ones must have, or they would corrupt an index."""

    value: int | None = None
    """None before the first vectors."""


@dataclass(eq=False)
class EmbeddingCandidate(VectorCandidate[EmbedAnswer]):
    """A target for embeddings."""

    ability: EmbeddingAbility
    """Its ability."""
    seen: SeenDimension = field(default_factory=SeenDimension)
    """The dimension of the chain's vectors, shared by all its candidates."""

    def shaped(self, answer: EmbedAnswer) -> EmbedAnswer:
        """Check the vectors, and truncate and scale them by the chain's settings.

        Raises:
            BadResponse: the vectors are no embeddings, or have another dimension than the model's.
        """
        vectors = answer.vectors
        if fault := vectors.fault():
            raise BadResponse(f"vectors that are not embeddings: {fault}", target=self.label)
        expected = self.ability.model_space().dimension
        if expected is not None and vectors.dim != expected:
            raise BadResponse(
                f"vectors of {vectors.dim} numbers, and {self.ability.space_model()} has {expected}", target=self.label
            )
        return replace(answer, vectors=with_dimensions(vectors, self.ability.options))

    def rows_by_files(self, files: ModelFiles, options: Mapping[str, Any]) -> tuple[Rows, Mapping[str, Rows]]:
        """Compute the canaries' vectors with the model's files, and with one setting changed, by the words for that setting.

        Args:
            files: the model's files.
            options: options of the engine.

        Raises:
            GatewayError: the model does not run here.
        """
        from hf_gateway.engines.variants import measured_variants

        space = self.required_space
        own, changed = measured_variants(files, space, options, space.revision)
        return self._shaped_rows(own), {words: self._shaped_rows(rows) for words, rows in changed.items()}

    def _shaped_rows(self, rows: Rows) -> Rows:
        """Truncate and scale rows as the chain does with every target's vectors."""
        found: dict[Role, tuple[Row | None, ...]] = {}
        for role, vectors in rows.items():
            shaped = with_dimensions(Vectors.of(row for row in vectors if row), self.ability.options)
            found[role] = tuple(tuple(row) for row in shaped)
        return found

    def check(self, answer: EmbedAnswer, request: EmbedRequest) -> None:
        """Check the vectors of one answer together, and their dimension.

        Args:
            answer: the answer, without canaries.
            request: the caller's texts.

        Raises:
            BadResponse: another dimension than that of the chain's vectors so far, or the same vector for different texts.
        """
        if not self.authoritative and (fault := _check_vectors(answer.vectors, request)):
            raise BadResponse(fault, target=self.label)
        if self.seen.value is None:
            self.seen.value = answer.vectors.dim
        elif answer.vectors.dim != self.seen.value:
            raise BadResponse(
                f"vectors of {answer.vectors.dim} numbers where this chain gave {self.seen.value} before; "
                "is it another model, or has the model there changed?",
                target=self.label,
            )


def _check_vectors(vectors: Vectors, request: EmbedRequest) -> str | None:
    """Return what no model does: the same vector for texts of which no two are alike.

    Many models ignore case, accents and blanks, and truncated texts may differ only in the part that was cut off.
    """
    texts = request.texts
    if len(texts) < 3 or request.truncate or any(vectors[place] != vectors[0] for place in range(1, len(texts))):
        return None
    if len(set(map(_single_line, texts))) < len(texts):
        return None
    return f"one and the same vector for {len(texts)} different texts"


def _single_line(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not letter.isspace() and not unicodedata.combining(letter))


def with_dimensions(vectors: Vectors, options: EmbedOptions) -> Vectors:
    """Truncate and scale here rather than on the server: otherwise targets would differ in it.

    Args:
        vectors: a target's vectors.
        options: `dimensions` and `normalize`.
    """
    dimensions = options.dimensions
    if dimensions is not None:
        if dimensions > vectors.dim:
            raise InvalidRequest(f"dimensions={dimensions} is more than the model has ({vectors.dim})")
        if dimensions < vectors.dim:
            vectors = vectors.truncated(dimensions)
    return vectors.normalized() if options.normalize else vectors
