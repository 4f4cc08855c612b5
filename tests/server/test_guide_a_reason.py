"""POST /huggingface/reason: the steps of a question, their passages, and the answer."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from hf_gateway import Gateway
from hf_gateway.retrieval.files import Passage
from hf_gateway.retrieval.index import make_index
from tests.servers.chat import Brain, Said, script
from tests.servers.loopback import Reply, dead_url
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import HASH_CHAIN, chat_chain, gateway_server
from tests.support.server_keys import bearer, make_key

FACTS = ["Ada Lovelace wrote the first program", "Ada Lovelace was born in London", "ferries leave at noon"]
INDEXED = '[server.indexes]\nmanual = "manual"\n'
STEPS = "1. Who wrote the first program?\n2) Where was that person born?\n"
TWO_HOPS = (STEPS, "Ada Lovelace wrote the first program.", "In London.", "She was born in London.")


@pytest.fixture(autouse=True)
def _index() -> None:
    with Gateway(targets="hash:64") as gateway:
        make_index(Path("manual"), [Passage(f"{number}.md", text) for number, text in enumerate(FACTS)], gateway)


def events_of(answer: httpx.Response) -> list[Any]:
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    assert answer.text.endswith("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in answer.text[:-2].split("\n\n")]


def asked(config: str = INDEXED, brain: Brain | None = None, **fields: Any) -> tuple[list[Any], list[Any]]:
    """Return the events of an answer, and the messages of the model's requests."""
    body = {"question": "Where was the author of the first program born?", **fields}
    with (
        FakeOpenAI(models=None, brain=brain or script(*TWO_HOPS)) as fake,
        gateway_server(HASH_CHAIN + chat_chain(fake.url) + config) as server,
        server.client() as client,
    ):
        events = events_of(client.post("/huggingface/reason", json=body))
        requests = [each.json for each in fake.requests if each.path.endswith("/chat/completions")]
    return events, requests


def test_a_question_is_answered_in_steps_with_their_passages() -> None:
    events, requests = asked(top_k=1)
    first, second, *rest = events
    assert [first["step"], first["steps"], second["step"], second["steps"]] == [1, 2, 2, 2]
    assert [first["question"], second["question"]] == ["Who wrote the first program?", "Where was that person born?"]
    assert [each["text"] for each in first["passages"]] == [FACTS[0]]
    assert set(first["passages"][0]) == {"text", "source", "score"}
    assert (first["answer"], second["answer"]) == (TWO_HOPS[1], TWO_HOPS[2])
    assert rest[-1] == {"done": True}
    assert "".join(each["text"] for each in rest[:-1]) == TWO_HOPS[3]
    assert len(requests) == 4


def test_a_step_is_looked_up_with_what_the_one_before_has_found() -> None:
    (_, second, *_), _ = asked(top_k=1)
    assert "Ada" in second["passages"][0]["text"]
    with Gateway(targets="hash:64") as gateway:
        from hf_gateway.retrieval.index import PassageIndex

        index = PassageIndex.open(Path("manual"), gateway)
        (found,) = index.search(f"{second['question']} {TWO_HOPS[1]}", 1)
        (alone,) = index.search(second["question"], 1)
    assert second["passages"] == [{"text": found.text, "source": found.source, "score": pytest.approx(found.score)}]
    assert found.score != pytest.approx(alone.score)


def test_the_model_sees_the_passages_and_what_is_known() -> None:
    _, (_, first, second, last) = asked(top_k=1)
    assert FACTS[0] in first["messages"][-1]["content"]
    assert "0.md" in first["messages"][-1]["content"]
    assert TWO_HOPS[1] in second["messages"][-1]["content"]
    assert all(words in last["messages"][-1]["content"] for words in TWO_HOPS[1:3])
    assert last["stream"] is True


def test_the_number_of_steps_is_bounded() -> None:
    many = "\n".join(f"- question {number}" for number in range(50))
    events, _ = asked(brain=script(many, "an answer"), max_steps=3)
    assert [event["question"] for event in events if "step" in event] == ["question 0", "question 1", "question 2"]


def test_one_step_asks_for_no_division() -> None:
    events, requests = asked(brain=script("a finding", "an answer"), max_steps=1)
    assert events[0]["question"] == "Where was the author of the first program born?"
    assert len(requests) == 2


@pytest.mark.parametrize(("config", "fields"), [("", {}), (INDEXED, {"top_k": 0})], ids=["no index", "no passages"])
def test_without_passages_the_model_answers_alone(config: str, fields: dict[str, int]) -> None:
    events, _ = asked(config, **fields)
    assert [event["passages"] for event in events if "step" in event] == [[], []]
    assert events[-1] == {"done": True}


TWO_INDEXES = '[server.indexes]\nmanual = "manual"\nother = "manual"\n'


@pytest.mark.parametrize(
    ("config", "fields", "status", "words"),
    [
        (INDEXED, {"index": "manal"}, 404, "no index 'manal'; did you mean 'manual'?"),
        (TWO_INDEXES, {}, 400, "manual, other"),
        (INDEXED, {"question": "  "}, 400, "question is blank"),
        (INDEXED, {"question": ""}, 400, "question"),
        (INDEXED, {"max_steps": 9}, 400, "max_steps"),
        (INDEXED, {"top_k": 1000}, 400, "top_k"),
        (INDEXED, {"model": "nobody"}, 404, "nobody"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_the_stream(
    config: str, fields: dict[str, Any], status: int, words: str
) -> None:
    with FakeOpenAI(models=None) as fake, gateway_server(HASH_CHAIN + chat_chain(fake.url) + config) as server:
        with server.client() as client:
            answer = client.post("/huggingface/reason", json={"question": "why?", **fields})
        assert (answer.status_code, set(answer.json())) == (status, {"error", "code"})
        assert words in answer.json()["error"]
        assert not fake.requests


def test_a_model_that_fails_at_once_is_an_answer_with_its_status() -> None:
    with FakeOpenAI(models=None) as fake, gateway_server(HASH_CHAIN + chat_chain(fake.url) + INDEXED) as server:
        fake.always(Reply(500, {"error": {"message": "no"}}))
        with server.client() as client:
            assert client.post("/huggingface/reason", json={"question": "why?"}).status_code == 502


def test_a_model_that_fails_later_ends_the_stream_with_an_error_and_without_done() -> None:
    said: list[str] = []

    def brain(_: dict[str, Any]) -> Said:
        said.append("one question" if not said else "an answer")
        if len(said) == 2:
            fake.always(Reply(500, {"error": {"message": "no"}}))
        return Said(said[-1])

    with (
        FakeOpenAI(models=None, brain=brain) as fake,
        gateway_server(HASH_CHAIN + chat_chain(fake.url) + INDEXED) as server,
        server.client() as client,
    ):
        events = events_of(client.post("/huggingface/reason", json={"question": "why?"}))
    assert [event.get("step") for event in events] == [1, None]
    assert set(events[-1]) == {"error", "code"}


def test_an_error_shows_no_address_of_a_target() -> None:
    url = dead_url()
    with gateway_server(HASH_CHAIN + chat_chain(url) + INDEXED) as server, server.client() as client:
        answer = client.post("/huggingface/reason", json={"question": "why?"})
    assert answer.status_code == 502
    assert url.partition("//")[2] not in answer.text


@pytest.mark.parametrize(
    ("rights", "status"),
    [
        ({"scopes": {"chat"}}, 403),
        ({"chains": frozenset({"chat"})}, 403),
        ({"scopes": {"chat", "embed"}}, 200),
    ],
    ids=["no embed", "another chain", "both scopes"],
)
def test_retrieval_needs_the_rights_to_embed(rights: dict[str, Any], status: int) -> None:
    url = f"sqlite:///{Path.cwd() / 'keys.sqlite'}"
    key = make_key(url, **rights)
    with FakeOpenAI(models=None) as fake:
        config = HASH_CHAIN + chat_chain(fake.url) + f'[server]\ndatabase = "{url}"\n' + INDEXED
        with gateway_server(config) as server, server.client(headers=bearer(key)) as client:
            assert client.post("/huggingface/reason", json={"question": "why?"}).status_code == status
