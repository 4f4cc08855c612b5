"""Parameters that change an answer are obeyed or refused: an answer without them looks right and is another one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.every_chain import EveryChain, every_chain
from tests.support.gateway_server import gateway_server

ASK = [{"role": "user", "content": "x"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
GENERATE = "/models/talk/pipeline/text-generation"


@pytest.fixture
def chains(tmp_path: Path) -> Iterator[EveryChain]:
    with every_chain(tmp_path) as made:
        yield made


@pytest.fixture
def client(chains: EveryChain) -> Iterator[httpx.Client]:
    with gateway_server(chains.config) as server, server.client() as made:
        yield made


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look_up"}}])
def test_a_call_is_not_demanded_without_tools(client: httpx.Client, choice: Any) -> None:
    answer = client.post("/v1/chat/completions", json={"messages": ASK, "tool_choice": choice})
    assert answer.status_code == 400
    assert "tool" in answer.json()["error"]["message"]


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_other_choices_say_nothing_without_tools(client: httpx.Client, choice: Any) -> None:
    assert client.post("/v1/chat/completions", json={"messages": ASK, "tool_choice": choice}).status_code == 200


@pytest.mark.parametrize(
    "parameters",
    [
        {"n": 2},
        {"best_of": 2},
        {"num_return_sequences": 2},
        {"grammar": {"type": "regex", "value": "a+"}},
        {"grammar": {"type": "json", "value": "{}"}},
    ],
)
def test_a_pipeline_refuses_what_it_cannot_do(client: httpx.Client, parameters: dict[str, Any]) -> None:
    answer = client.post(GENERATE, json={"inputs": "x", "parameters": parameters})
    assert (answer.status_code, answer.json()["code"]) == (400, "unsupported")


def test_a_pipeline_obeys_a_grammar_of_json(chains: EveryChain, client: httpx.Client) -> None:
    given = {"inputs": "x", "parameters": {"grammar": {"type": "json", "value": SCHEMA}, "best_of": 1}}
    client.post(GENERATE, json=given)
    sent = chains.openai.requests[-1].json
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA


def test_log_probabilities_of_completions_are_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/completions", json={"prompt": "x", "logprobs": 3})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logprobs")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": "x"}),
        ("/embed_sparse", {"inputs": "x"}),
        ("/rerank", {"query": "x", "texts": ["x"]}),
        ("/predict", {"inputs": "x"}),
        ("/models/docs/pipeline/feature-extraction", {"inputs": "x"}),
    ],
)
@pytest.mark.parametrize("direction", ["left", "Left", "right", "Right"])
def test_texts_do_not_lose_their_end_where_their_beginning_was_to_go(
    client: httpx.Client, path: str, body: dict[str, Any], direction: str
) -> None:
    given = {"truncation_direction": direction, "truncate": True}
    pipeline = "pipeline" in path
    answer = client.post(path, json={**body, "parameters": given} if pipeline else {**body, **given})
    assert answer.status_code == (200 if direction.lower() == "right" else 400), answer.text
    kept = {**given, "truncate": False}
    assert client.post(path, json={**body, "parameters": kept} if pipeline else {**body, **kept}).status_code == 200
