"""All forms of calling ChatHFGateway behind one name, so that each behaviour is tested in all of them with the same lines."""

import asyncio
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Literal

import langchain_hf_gateway
from tests.servers.loopback import Loopback

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage
    from langchain_core.runnables import Runnable

    from langchain_hf_gateway import ChatHFGateway

MODEL = "test/chat-model"
Form = Literal["invoke", "ainvoke", "stream", "astream"]
FORMS: tuple[Form, ...] = ("invoke", "ainvoke", "stream", "astream")


def through(*servers: Loopback, **arguments: Any) -> "ChatHFGateway":
    """Build a chat model over OpenAI-compatible servers."""
    targets = [f"openai:{server.url}" for server in servers]
    return langchain_hf_gateway.ChatHFGateway(**{"model": MODEL, "targets": targets, "max_retries": 0, **arguments})


def ask(
    runnable: "Runnable[Any, Any]", form: Form = "invoke", asked: Any = "Tell me a story", **call: Any
) -> "AIMessage":
    """Ask; the chunks of a stream are added up."""
    if form == "invoke":
        return runnable.invoke(asked, **call)
    if form == "ainvoke":
        return asyncio.run(runnable.ainvoke(asked, **call))
    if form == "stream":
        return reduce(add, runnable.stream(asked, **call))

    async def read() -> "list[AIMessage]":
        return [chunk async for chunk in runnable.astream(asked, **call)]

    return reduce(add, asyncio.run(read()))


def sent(server: Loopback, place: int = -1) -> Any:
    """Return the body of a request that a server got, the last one if no other is named."""
    return server.requests[place].json
