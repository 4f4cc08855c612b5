"""What all surfaces share that retrieve passages: the rights of a caller, and the search."""

from hf_gateway.errors import GatewayError
from hf_gateway.retrieval.index import Found
from hf_gateway.server.dispatch.call import Call
from hf_gateway.server.dispatch.indexes import ServedIndex
from hf_gateway.server.problems import Problem

MAX_PASSAGES_COUNT = 100
"""Maximum passages of one search."""


def require_retrieval(call: Call, served: ServedIndex) -> None:
    """Raise Problem if the caller may not embed, or may not use the chain that embeds for an index.

    Args:
        call: the request.
        served: the index.
    """
    call.require_scope("embed")
    if not call.caller.may_use(served.chain.name):
        raise Problem(
            403, "chain_forbidden", f"this key may not use the chain {served.chain.name!r}, which the index needs"
        )


async def find_passages(call: Call, served: ServedIndex, query: str, count: int) -> list[Found]:
    """Return the passages of an index that are most similar to a query; the call's chain is then the same as before.

    Args:
        call: the request.
        served: the index.
        query: what is looked for.
        count: how many at most.

    Raises:
        Problem: the query cannot be embedded; without the addresses of targets.
    """
    before, call.chain = call.chain, served.chain
    try:
        return await served.index.asearch(query, count)
    except GatewayError as error:
        raise call.problem_of(error) from None
    finally:
        call.chain = before
