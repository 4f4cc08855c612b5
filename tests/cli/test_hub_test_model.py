"""`hf-gateway hub test-model`, with the variables and the words of the guide for a prompt runtime."""

import json

import pytest

from hf_gateway.cli import main
from tests.servers.chat import script
from tests.servers.loopback import Reply, dead_url, hang
from tests.servers.router import LLAMA, FakeRouter

SCOPE = "401/403: check that HF_TOKEN is valid, and that its scope"
SPELLING = "404: check the spelling of the model"
TIME_OUT = "time-out: check the network and whether the model is available, or try a smaller model"


def named(monkeypatch: pytest.MonkeyPatch, url: str, token: str = "hf_test", model: str = LLAMA) -> None:
    for name, value in {"HF_ENDPOINT": f"{url}/v1", "HF_TOKEN": token, "HF_MODEL_ID": model}.items():
        monkeypatch.setenv(name, value)


def test_the_model_is_asked_at_the_endpoint_with_the_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeRouter(brain=script("It works.")) as router:
        named(monkeypatch, router.url)
        assert main(["hub", "test-model", "Does it work?"]) == 0
        (request,) = [each for each in router.requests if each.path.endswith("/chat/completions")]
    printed = capsys.readouterr()
    assert printed.out == "It works.\n"
    assert LLAMA in printed.err
    assert (request.bearer, request.json["model"]) == ("hf_test", LLAMA)
    assert request.json["messages"] == [{"role": "user", "content": "Does it work?"}]
    assert (request.json.get("max_completion_tokens") or request.json.get("max_tokens")) == 256


def test_the_answer_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeRouter(brain=script("It works.")) as router:
        named(monkeypatch, router.url)
        assert main(["hub", "test-model", "x", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["model"], told["text"]) == (True, LLAMA, "It works.")


@pytest.mark.parametrize(
    ("token", "model", "words"),
    [
        ("hf_wrong", LLAMA, SCOPE),
        ("hf_unscoped", LLAMA, SCOPE),
        ("hf_test", "meta-llama/Llama-3.1-8B-Instrukt", SPELLING),
    ],
    ids=["401", "403", "404"],
)
def test_a_refusal_says_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str, model: str, words: str
) -> None:
    with FakeRouter() as router:
        named(monkeypatch, router.url, token, model)
        assert main(["hub", "test-model", "x"]) == 1
    printed = capsys.readouterr().err
    assert words in printed
    assert token not in printed


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_any_server_says_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    with FakeRouter() as router:
        router.always(Reply(status, {"error": "no"}))
        named(monkeypatch, router.url)
        assert main(["hub", "test-model", "x", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert (SPELLING if status == 404 else SCOPE) in told["advice"]


def test_a_time_out_and_no_server_say_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeRouter() as router:
        router.always(hang())
        named(monkeypatch, router.url)
        assert main(["hub", "test-model", "x", "--timeout", "0.3"]) == 1
    assert TIME_OUT in capsys.readouterr().err
    named(monkeypatch, dead_url())
    assert main(["hub", "test-model", "x"]) == 1
    assert TIME_OUT in capsys.readouterr().err


@pytest.mark.parametrize(("missing", "words"), [("HF_MODEL_ID", "set HF_MODEL_ID"), ("HF_TOKEN", "HF_TOKEN")])
def test_what_is_not_set_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str, words: str
) -> None:
    with FakeRouter() as router:
        named(monkeypatch, router.url)
        monkeypatch.delenv(missing)
        assert main(["hub", "test-model", "x"]) in (1, 2)
        assert words in capsys.readouterr().err


def test_an_empty_prompt_is_wrong_use(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    named(monkeypatch, dead_url())
    assert main(["hub", "test-model", "  "]) == 2
    assert "prompt is empty" in capsys.readouterr().err
