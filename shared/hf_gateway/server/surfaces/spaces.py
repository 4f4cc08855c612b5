"""The vector spaces of the server's chains: what is known of each, and how it was measured.

A client on another machine learns by it in which space it is answered, and may compare vectors of its own with the fingerprint.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from hf_gateway.errors import did_you_mean
from hf_gateway.server import problems
from hf_gateway.server.dispatch.call import SPACE, Answer, Call, header_value
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.surfaces.openai import SURFACE
from hf_gateway.spaces.fingerprint import CANARIES, Fingerprint, Store
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.wire.json import dumps_numbers


class MeasuredSpace(BaseModel):
    """The vectors that the canary texts have in a space."""

    authority: str
    """`files` if the model's own files made them, `server` if the first server that answered did."""
    taken: str
    """When they were measured, in ISO 8601."""
    rows: dict[str, list[str | None]]
    """For `document` and `query` the vector of each canary, base64 of little-endian float32; null for one not measured."""


class SpaceAnswer(BaseModel):
    """The answer of GET /v1/spaces/{id}."""

    id: str
    """Its id, as `x-hf-gateway-space` has it."""
    object: str
    """Always `space`."""
    space: dict[str, Any]
    """What is known of it, field by field: model, revision, dimension, pooling, prompts …"""
    chains: list[str]
    """The names of the chains that answer in it."""
    canaries: list[str]
    """The texts by which spaces are measured."""
    fingerprint: MeasuredSpace | None
    """Their vectors; null for a space that was not measured yet."""


async def describe(call: Call) -> Answer:
    """Describe a vector space."""
    wanted = call.params["id"]
    found = list(_spaces(call))
    names = [chain.name for chain, space in found if space.id == wanted]
    space = next((space for _, space in found if space.id == wanted), None)
    if space is None:
        known = {space.id for _, space in found}
        near = did_you_mean(wanted, known) if known else ""
        raise problems.not_found(f"no chain answers in the space {wanted[:200]!r}{near}", "id", "space_not_found")
    fingerprint = await asyncio.to_thread(Store().load, space)
    answer = {
        "id": space.id,
        "object": "space",
        "space": space.to_dict(),
        "chains": list(dict.fromkeys(names)),
        "canaries": list(CANARIES),
        "fingerprint": None if fingerprint is None else _measured(fingerprint),
    }
    return Answer(dumps_numbers(answer), headers=[(SPACE, header_value(space.id))])


def _measured(fingerprint: Fingerprint) -> dict[str, Any]:
    """Return a fingerprint without the label of its target, which may have an address."""
    whole = fingerprint.to_dict()
    return {name: whole[name] for name in MeasuredSpace.model_fields}


def _spaces(call: Call) -> Iterator[tuple[Chain, VectorSpace]]:
    """Yield the chains that the caller may use and their variants, with their spaces."""
    for chain in call.table:
        if call.caller.may_use(chain.name):
            for each in (chain, *chain.variants):
                if (found := each.space) is not None:
                    yield each, found


ROUTES = (
    Route(
        "GET",
        "/v1/spaces/{id:path}",
        SURFACE,
        "read",
        describe,
        "Describe a vector space",
        answer=SpaceAnswer,
        statuses=(404,),
        other_scopes=("embed",),
    ),
)
