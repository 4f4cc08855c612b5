"""What may stand where the numbers of a vector belong: anything but numbers is a `BadResponse`, whichever server sends it."""

from typing import Any

import pytest

from hf_gateway import Gateway, errors
from tests.servers.loopback import Reply
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI

WRONG: dict[str, Any] = {
    "booleans": [True, False],
    "one boolean": [0.5, True],
    "strings": ["0.5", "1.0"],
    "null": [0.5, None],
    "nested": [[0.5], [1.0]],
    "objects": [{"value": 0.5}, {"value": 1.0}],
    "a huge whole number": [10**400, 1],
    "beyond float32": [1e300, 1.0],
    "empty": [],
    "a number": 0.5,
    "a word": "true",
}


def openai(row: Any) -> tuple[type, str, Any]:
    return FakeOpenAI, "/v1/embeddings", {"data": [{"index": 0, "embedding": row}]}


def tei(row: Any) -> tuple[type, str, Any]:
    return FakeTEI, "/embed", [row]


def ollama(row: Any) -> tuple[type, str, Any]:
    return FakeOllama, "/api/embed", {"model": "m", "embeddings": [row], "done": False}


@pytest.mark.parametrize("row", WRONG)
@pytest.mark.parametrize("kind", [openai, tei, ollama])
def test_what_is_no_number_is_no_vector(kind: Any, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server_class, path, body = kind(WRONG[row])
    with server_class() as server:
        server.always(Reply(200, body), path=path)
        target = f"{kind.__name__}:{server.url}"
        if kind is ollama:
            monkeypatch.setenv("OLLAMA_HOST", server.url)
            target = "ollama"
        with pytest.raises(errors.BadResponse):
            Gateway("m", [target], check_space=False, max_retries=0).embed(["one"])


def test_true_and_false_elsewhere_in_an_answer_mean_nothing() -> None:
    with FakeOpenAI(models=None) as server:
        body = {"data": [{"index": 0, "embedding": [0.6, 0.8], "truncated": False}], "cached": True}
        server.always(Reply(200, body), path="/v1/embeddings")
        assert Gateway("m", [f"openai:{server.url}"], check_space=False).embed(["x"]).vectors.dim == 2
