"""What all surfaces share that answer with vectors: the texts of a body, the chain with the form that is asked for, the space."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.errors import ConfigError
from hf_gateway.server.dispatch.call import SPACE, Call, RawHeaders, header_value
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.problems import Problem
from hf_gateway.values.embedding import EmbedResult, Role
from hf_gateway.values.sparse import SparseResult


@dataclass(frozen=True)
class VectorForm:
    """The form of the vectors that a request asks for; None for the chain's own."""

    role: Role = "document"
    """Which side of a search the texts are on."""
    truncate: bool | None = None
    """Whether texts that are too long are truncated rather than refused."""
    dimensions: int | None = None
    """Keep only the first numbers of each vector."""
    normalize: bool | None = None
    """Whether vectors have length 1."""
    direction: str | None = None
    """The end at which texts are truncated, "left" or "right"."""


def texts_of(given: Any, param: str, advice: str = "") -> list[str]:
    """Return the texts of a body, one or several. Raises Problem for token ids.

    Args:
        given: a text, a list of texts, or token ids.
        param: the name of the field.
        advice: what to do instead of sending token ids.
    """
    if isinstance(given, str):
        return [given]
    if given and not isinstance(given[0], str):
        raise Problem(
            400,
            "token_ids",
            f"{param} has token ids, which mean other texts to this model than to the tokenizer that made them; send texts"
            f"{advice}",
            param=param,
        )
    texts: list[str] = given
    return texts


async def embed(call: Call, chain: Chain, texts: Sequence[str], form: VectorForm) -> tuple[EmbedResult, RawHeaders]:
    """Embed texts by a chain; returns the vectors, and the headers that name their space and targets.

    Args:
        call: the request.
        chain: the chain.
        texts: the texts.
        form: the form that is asked for.

    Raises:
        Problem: the chain cannot have that form, or the request demands another space.
    """
    chain = call.chain = shaped(chain, form)
    call.demand_space(chain.gateway.space.id)
    result: EmbedResult = await chain.gateway.aembed(texts, role=form.role)
    return result, call.served_headers(result, (SPACE, header_value(result.space.id)))


async def embed_sparse(
    call: Call, chain: Chain, texts: Sequence[str], form: VectorForm
) -> tuple[SparseResult, RawHeaders]:
    """Embed texts into sparse vectors; returns them, and the headers that name their space and targets.

    Args:
        call: the request.
        chain: the chain.
        texts: the texts.
        form: the role, and whether to truncate.

    Raises:
        Problem: the request demands another space.
    """
    chain = call.chain = truncating(chain, form.truncate, form.direction)
    call.demand_space(chain.gateway.space.id)
    result: SparseResult = await chain.gateway.aembed(texts, role=form.role)
    return result, call.served_headers(result, (SPACE, header_value(result.space.id)))


def truncating(chain: Chain, truncate: bool | None, direction: str | None = None) -> Chain:
    """Return the chain that truncates texts, or refuses long ones. Raises Problem if texts are to lose their beginning.

    Args:
        chain: the chain.
        truncate: None for its own setting.
        direction: "left" or "right" in any case; None for "right".
    """
    chain = chain if truncate is None else chain.with_settings(truncate=truncate)
    if direction is not None and direction.lower() != "right" and getattr(chain.settings, "truncate", False):
        raise Problem(
            400,
            "unsupported",
            "texts are truncated at their end, which is 'right'; leave truncation_direction out",
            param="truncation_direction",
        )
    return chain


def shaped(chain: Chain, form: VectorForm) -> Chain:
    """Return the chain whose vectors have a form. Raises Problem if it cannot.

    Args:
        chain: the chain.
        form: the form that is asked for.
    """
    chain = truncating(chain, form.truncate, form.direction)
    space = chain.gateway.space
    changes: dict[str, Any] = {}
    if form.dimensions is not None and form.dimensions != space.dimension:
        changes["dimensions"] = form.dimensions
    if form.normalize and not space.normalized:
        changes["normalize"] = True
    if form.normalize is False and space.normalized:
        raise Problem(
            400,
            "unsupported",
            "the vectors of this chain have length 1, and their lengths before that are not known; leave normalize out",
            param="normalize",
        )
    try:
        return chain.with_settings(**changes)
    except ConfigError as error:
        raise Problem(400, "invalid_request", chain.public(error.message), param=next(iter(changes))) from None
