"""Bodies within the bound of their size that would keep the server from everything else: many faults, long names."""

import difflib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.gateway_server import HASH_CHAIN, gateway_server
from tests.support.late import COLLECTED
from tests.support.ledgers import sqlite as sqlite  # a fixture
from tests.support.server_keys import bearer, make_key

if COLLECTED:
    from pydantic import BaseModel, ValidationError

    from hf_gateway.server.application import ROUTES

COUNT = 50
LONG = "m" * 500_000


def lists() -> Iterator[Any]:
    """Give lists of which each entry is wrong for one body or another, and lists within such lists."""
    for wrong in ({}, 1.5, None, [{}], [1.5], "x", {"role": 1}):
        yield [wrong] * COUNT
    yield [[{}] * COUNT]
    yield ["x"] * COUNT + [None]
    for name in ("content", "images", "tool_calls"):
        yield [{"role": "user", name: [1.5] * COUNT}] * COUNT


def faults(model: "type[BaseModel]", body: dict[str, Any]) -> int:
    """Return of how many faults a list is made for a body."""
    try:
        model.model_validate_json(json.dumps(body))
    except ValidationError as error:
        return error.error_count()
    return 0


def test_a_list_of_wrong_entries_is_one_fault() -> None:
    """12 MB of them took two minutes, in which no other request was answered, and no probe."""
    models = {route.request for route in ROUTES if route.request is not None}
    found = {
        (model.__name__, name): max(faults(model, {name: given}) for given in lists())
        for model in models
        for name in model.model_fields
    }
    assert max(found.values()) <= 20, max(found, key=lambda each: found[each])


def test_many_unknown_fields_are_counted_and_not_listed(sqlite: str) -> None:
    headers = bearer(make_key(sqlite))
    with (
        gateway_server(f'{HASH_CHAIN}[server]\ndatabase = "{sqlite}"\n') as server,
        server.client(headers=headers) as client,
    ):
        answer = client.post("/admin/keys", json={"name": "x", "scopes": ["embed"]} | {f"f{i}": 1 for i in range(1000)})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert "1,000 fields" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "x", "model": LONG}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "model": LONG}),
        ("/api/show", {"model": LONG}),
        ("/functions/v1/huggingface-inference", {"modelId": LONG, "task": "feature-extraction", "inputs": "x"}),
    ],
)
def test_a_long_name_is_neither_compared_nor_repeated(
    path: str, body: dict[str, Any], client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    real = difflib.get_close_matches

    def compare(word: str, *others: Any, **options: Any) -> list[str]:
        compared.append(word)
        return real(word[:100], *others, **options)

    monkeypatch.setattr(difflib, "get_close_matches", compare)
    answer = client.post(path, json=body)
    assert answer.status_code == 404
    assert max(map(len, compared), default=0) < 10_000
    assert len(answer.content) < 10_000


def test_a_key_in_a_long_name_is_not_repeated_in_part(client: httpx.Client) -> None:
    made = "hfg_" + "a" * 12 + "_" + "b" * 43
    for before in range(7950, 8010, 3):
        answer = client.post("/v1/embeddings", json={"input": "x", "model": "m" * before + f" {made} " + LONG})
        assert "b" * 8 not in answer.text


DENSE = 120_000
CALL = {"function": {"name": "look_up"}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [CALL] * DENSE}]},
        ),
        ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": ["a\\"] * DENSE}]}),
        ("/v1/embeddings", {"input": [[]] * DENSE}),
        ("/v1/rerank", {"query": "x", "documents": [{"text": 'a"'}] * DENSE}),
        ("/api/v1/chat", {"context": "x", "data": {f"field {number}": number for number in range(DENSE)}}),
    ],
)
def test_a_body_of_very_many_entries_is_not_read(path: str, body: dict[str, Any], client: httpx.Client) -> None:
    """A million tool calls took 23 s, in which no other request was answered, and no probe."""
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert "100,000 entries" in answer.text


@pytest.mark.parametrize("text", ["a," * DENSE, '",' * DENSE, "\\," * DENSE, '\\",' * DENSE])
def test_commas_and_quotation_marks_in_a_text_are_no_entries(text: str, client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"input": [text], "user": "x"})
    assert "entries" not in answer.text


def test_very_many_token_ids_are_answered_by_what_the_client_has_to_set(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"input": [[7] * 500] * 300})
    assert answer.status_code == 400
    assert "check_embedding_ctx_length=False" in answer.text
    other = client.post("/v1/rerank", json={"query": "x", "documents": ["a"] * DENSE})
    assert "entries" in other.text
    assert "token ids" not in other.text
