"""Errors of a task are of no built-in class that frameworks catch for reasons of their own."""

import asyncio
import builtins
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import hf_gateway
import langchain_hf_gateway
import llamaindex_hf_gateway
from hf_gateway import Gateway, errors
from hf_gateway.values.chat import ToolCall
from tests.servers.loopback import Reply, dead_url, hang
from tests.servers.openai import FakeOpenAI
from tests.support.embedders import MODEL
from tests.support.late import COLLECTED

if COLLECTED:
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.llms import LLM
    from llama_index.core.response_synthesizers import ResponseMode

    from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM


BUILT_IN = {kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)}
PLAIN = {object, BaseException, Exception}
CONNECTOR = "hf_gateway.hub."
"""Classes that the Hub's connector alone raises; a chain never does, and code for other connectors catches their bases."""


def modules() -> Iterator[str]:
    for door in (hf_gateway, langchain_hf_gateway, llamaindex_hf_gateway):
        for each in pkgutil.walk_packages(door.__path__, f"{door.__name__}."):
            if ".migrations" not in each.name and "__main__" not in each.name:
                yield each.name


def family(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from family(each)


@pytest.mark.slow  # imports every module
def test_no_error_of_a_task_is_a_built_in_class() -> None:
    for name in modules():
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # of an extra that is not installed
    kinds = [kind for kind in family(errors.GatewayError) if not kind.__module__.startswith(CONNECTOR)]
    assert len(kinds) > 50
    for kind in kinds:
        assert not (set(kind.__mro__) & BUILT_IN) - PLAIN, f"{kind.__module__}.{kind.__name__}: {kind.__mro__}"


@pytest.mark.parametrize(
    ("provoke", "kind"),
    [
        (lambda: Gateway(targets=["hash"]).embed(["ok", ""]), errors.InvalidRequest),
        (lambda: Gateway(targets=["hash"]).embed(["\ud800"]), errors.InvalidRequest),
        (lambda: Gateway(MODEL, [f"openai:{dead_url()}"], max_retries=0).embed(["x"]), errors.ConnectFailed),
        (
            lambda: Gateway(MODEL, ["openai:http://127.0.0.1:9"], task="chat").chat([{"role": "robot"}]),
            errors.InvalidRequest,
        ),
        (lambda: Gateway(MODEL, ["openai:http://127.0.0.1:9"], task="chat").stream("x").result, errors.InvalidRequest),
        (lambda: ToolCall("1", "f", "{broken").parsed(), errors.BadGeneration),
        (lambda: ToolCall("1", "f", "[1]").parsed(), errors.BadGeneration),
        (lambda: ToolCall("1", "f", "[" * 100_000).parsed(), errors.BadGeneration),
    ],
    ids=range(8),
)
def test_what_a_task_raises_is_one_of_ours(provoke: Callable[[], Any], kind: type[errors.GatewayError]) -> None:
    with pytest.raises(errors.GatewayError) as caught:
        provoke()
    assert type(caught.value) is kind
    assert not isinstance(caught.value, ValueError | RuntimeError | LookupError | OSError)


def test_an_awaited_deadline_is_not_taken_for_that_of_the_one_who_waits() -> None:
    async def ask(url: str) -> None:
        gateway = Gateway(MODEL, [f"openai:{url}"], timeout=0.2, max_retries=0)
        try:
            await asyncio.wait_for(gateway.aembed(["x"]), 60)
        except TimeoutError:
            pytest.fail("the deadline of the request looks like that of wait_for")

    with FakeOpenAI(models=None) as server:
        server.always(hang())
        with pytest.raises(errors.Unavailable):
            asyncio.run(ask(server.url))


# LlamaIndex: a refused request is raised, never an empty answer.

REFUSALS = {
    "the setting is wrong": (400, "max_tokens must be at most 8192", errors.InvalidRequest),
    "too long": (400, "this model's maximum context length is 4096 tokens", errors.ContextOverflow),
    "cannot do that": (501, "This server does not support tools", errors.Unsupported),
    "policy": (400, "blocked by our content policy", errors.ContentFiltered),
    "key": (401, "no", errors.AuthenticationFailed),
    "failure": (500, "no", errors.ServerError),
}


class Answer(BaseModel):
    """What a structured query gives."""

    colour: str


def index() -> Any:
    return VectorStoreIndex.from_documents(
        [Document(text="The sky is blue.")], embed_model=HFGatewayEmbedding(targets=["hash"])
    )


WAYS: dict[str, Callable[[Any], Any]] = {
    "query": lambda engine: engine.query("Colour?"),
    "aquery": lambda engine: asyncio.run(engine.aquery("Colour?")),
}
ENGINES: "dict[str, Callable[[LLM], Any]]" = {
    "plain": lambda llm: index().as_query_engine(llm=llm),
    "refine": lambda llm: index().as_query_engine(llm=llm, response_mode=ResponseMode.REFINE),
    "filtered": lambda llm: index().as_query_engine(llm=llm, structured_answer_filtering=True),
    "streamed": lambda llm: index().as_query_engine(llm=llm, streaming=True),
    "structured": lambda llm: index().as_query_engine(llm=llm, output_cls=Answer),
}


def read(answer: Any) -> str:
    if hasattr(answer, "response_gen") and answer.response_gen is not None:
        return "".join(answer.response_gen)
    if hasattr(answer, "async_response_gen"):
        return asyncio.run(gathered(answer))
    return str(answer)


async def gathered(answer: Any) -> str:
    return "".join([piece async for piece in answer.async_response_gen()])


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("engine", ENGINES)
def test_llamaindex_raises_a_refusal_and_makes_no_answer_of_it(
    primary: FakeOpenAI, engine: str, way: str, refusal: str
) -> None:
    if (engine, way) == ("streamed", "aquery"):
        pytest.skip("its generator belongs to a loop that is gone")
    status, message, kind = REFUSALS[refusal]
    primary.always(Reply(status, {"error": {"message": message, "type": "x"}}))
    llm = HFGatewayLLM(model="test/chat", targets=[f"openai:{primary.url}"], max_retries=0)
    with pytest.raises(errors.GatewayError) as caught:
        read(WAYS[way](ENGINES[engine](llm)))
    assert type(caught.value) is kind
