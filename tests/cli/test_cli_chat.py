"""`hf-gateway chat` as a stranger meets it."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from tests.servers.chat import Said, script
from tests.servers.loopback import Reply, dead_url, end_stream, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeRouter

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
STORY = "Once upon a time"


@pytest.fixture(autouse=True)
def _story(primary: FakeOpenAI) -> None:
    primary.brain = script(Said(STORY, reasoning="Let me think", prompt_tokens=3, completion_tokens=4))


def chat(*arguments: str, server: FakeOpenAI | None = None) -> int:
    targets = ["--targets", f"openai:{server.url}", "--model", "m"] if server else []
    return main(["chat", *targets, *arguments])


def test_it_prints_the_answer_and_who_gave_it(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("Tell", "a story", server=primary) == 0
    printed = capsys.readouterr()
    assert printed.out == STORY + "\n"
    assert f"m by openai:{primary.url}, 3 tokens in, 4 out, first after" in printed.err
    assert primary.requests[0].json["messages"] == [{"role": "user", "content": "Tell a story"}]
    assert primary.requests[0].json["stream"] is True


def test_it_reads_the_prompt_from_stdin(
    primary: FakeOpenAI, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Tell me\na story\n"))
    assert chat("--system", "Be brief", "--temperature", "0", "--max-tokens", "9", server=primary) == 0
    body = primary.requests[0].json
    assert [message["content"] for message in body["messages"]] == ["Be brief", "Tell me\na story\n"]
    assert (body["temperature"], body["max_tokens"]) == (0, 9)


def test_for_machines_it_prints_one_document(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("--json", "hi", server=primary) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found["reasoning"], found["served_by"]) == (STORY, "Let me think", f"openai:{primary.url}")
    assert found["usage"]["output_tokens"] == 4


def test_the_token_and_the_model_alone_are_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeRouter() as router:
        # A token for Hugging Face goes to no other host by itself, so the router of the test has it bound in a file.
        Path("hf-gateway.toml").write_text(
            f'[chains.chat]\ntask = "chat"\ntargets = [{{ kind = "hf", url = "{router.url}", credential = "env:HF_TOKEN" }}]\n'
        )
        monkeypatch.setenv("HF_GATEWAY_CONFIG", "hf-gateway.toml")
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setenv("HF_MODEL_ID", LLAMA)
        assert chat("--chain", "chat", "hello") == 0
        assert router.requests[0].json["model"] == LLAMA
        assert router.requests[0].bearer == "hf_test"
    assert "through ne" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        ({}, 2, "set HF_MODEL_ID"),
        ({"HF_MODEL_ID": LLAMA}, 1, "set HF_TOKEN"),
        ({"HF_MODEL_ID": LLAMA, "HF_GATEWAY_CHAT_TARGETS": "opnai:http://x"}, 2, "did you mean 'openai'"),
        ({"HF_MODEL_ID": LLAMA, "HF_GATEWAY_CHAT_TARGETS": "tei:http://x"}, 2, "does not support chat"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    environment: dict[str, str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert chat("hello") == code
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_nothing_to_ask_is_wrong_use(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("  \n"))
    assert chat("--model", "m") == 2
    assert "prompt is empty" in capsys.readouterr().err


def test_a_fallback_is_shown_once(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("--targets", f"openai:{dead_url()},openai:{primary.url}", "--model", "m", "hi") == 0
    printed = capsys.readouterr()
    assert printed.out == STORY + "\n"
    assert printed.err.count("ConnectFailed") == 1


def test_an_answer_that_breaks_off_is_no_success(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    primary.always(end_stream(7))
    assert chat("hi", server=primary) == 1
    printed = capsys.readouterr()
    assert STORY.startswith(printed.out.strip())
    assert "broke off" in printed.err


def test_doctor_looks_at_chat_chains_too(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    primary.always(Reply(200, {"object": "list", "data": [{"id": "m", "object": "model"}]}), path="/v1/models")
    Path("hf-gateway.toml").write_text(
        f'[chains.talk]\ntask = "chat"\nmodel = "m"\ntargets = ["openai:{primary.url}"]\n'
    )
    assert main(["doctor", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["chains"]
    assert (found["task"], found["works"], found["targets"][0]["report"]["serves"]) == ("chat", True, ["m"])


def test_doctor_takes_chat_targets_from_its_arguments(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--task", "chat", "--model", "m", "--targets", f"openai:{primary.url}"]
    assert main(["doctor", "--json", *arguments]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["chains"][0]["task"] == "chat"


def test_doctor_for_chat_looks_at_chat_alone(
    primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--task", "chat", "--json"]) == 1  # nothing says which model
    (found,) = json.loads(capsys.readouterr().out)["chains"]
    assert (found["task"], found["works"]) == ("chat", False)
    assert "HF_MODEL_ID" in found["error"]
    Path("hf-gateway.toml").write_text(
        f'[chains.docs]\ntargets = ["hash"]\n[chains.talk]\ntask = "chat"\nmodel = "m"\ntargets = ["openai:{primary.url}"]\n'
    )
    for task, names in ((["--task", "chat"], ["talk"]), (["--task", "embedding"], ["docs"]), ([], ["docs", "talk"])):
        main(["doctor", *task, "--json"])
        assert [each["chain"] for each in json.loads(capsys.readouterr().out)["chains"]] == names


def child(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    # A shell that runs the tests in the background has its children ignore the signal.
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen([sys.executable, "-m", "hf_gateway", "chat", *arguments], **heed, **options)


def test_in_a_terminal_it_streams_as_it_comes(primary: FakeOpenAI) -> None:
    stall = stall_stream(5)  # the role, three thoughts, one word
    primary.always(stall)
    ours, theirs = pty.openpty()
    process = child(
        "--model",
        "m",
        "--targets",
        f"openai:{primary.url}",
        "hi",
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
    )
    os.close(theirs)
    seen = b""
    try:
        while b"Once" not in seen:
            seen += os.read(ours, 4096)
        assert b"upon" not in seen
        assert b"Let me think" in re.sub(rb"\x1b\[\d*m", b"", seen)
        stall.release()
        while b"in all" not in seen:
            seen += os.read(ours, 4096)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert STORY.encode() in seen


def test_ctrl_c_ends_it_at_once_and_hangs_up(primary: FakeOpenAI) -> None:
    stall = stall_stream(5)
    primary.always(stall)
    process = child(
        "--model", "m", "--targets", f"openai:{primary.url}", "hi", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(4) == b"Once"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.decode().strip().endswith("interrupted")
    assert b"Traceback" not in errors
    assert stall.disconnected.wait(10)
