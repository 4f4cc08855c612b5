"""Pings, clients that leave, and servers that end, in streams and whole answers."""

import json
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.server.test_openai_chat import ASK, events_of
from tests.servers.loopback import HeldStream, Reply, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import START_S, RunningServer, ServerProcess, chat_chain, gateway_server
from tests.support.raw_http import connected as raw_connection
from tests.support.raw_http import exchange, received
from tests.support.ways import until

WAITS = "attempt_timeout = 300\nfirst_content_timeout = 300\nstall_timeout = 300"


def raw_request(url: str, body: object, **headers: str) -> socket.socket:
    """Send a chat request on a connection of its own, which the test can close at any moment."""
    host, _, port = url.partition("//")[2].partition(":")
    connection = socket.create_connection((host, int(port)), timeout=START_S)
    content = json.dumps(body)
    fields = {"host": host, "content-type": "application/json", "content-length": str(len(content)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n{content}".encode())
    return connection


def wait_until_idle(server: RunningServer) -> None:
    """Wait until no request is under way."""
    ended = threading.Event()
    server.state.ended.append(lambda *_: ended.set())
    if server.state.in_flight:
        assert ended.wait(START_S)
    assert not server.state.in_flight


@pytest.mark.parametrize("after", [0, 3])
def test_a_silent_stream_sends_pings_between_events(primary: FakeOpenAI, after: int) -> None:
    """litellm #37322, #31865: load balancers cut silent streams; suna #3696: pings broke events in two."""
    stall = stall_stream(after)
    primary.fail(stall)
    body = {"messages": ASK, "stream": True}
    with (
        gateway_server(chat_chain(primary.url, more=WAITS), ping_seconds=0.05) as server,
        server.client() as client,
        client.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        text, pings = "", 0
        for piece in answer.iter_text():
            text += piece
            pings += piece.count(": ping")
            if pings >= 3:
                stall.release()
    whole = events_of(text)
    assert pings >= 3
    assert whole[-1] == "[DONE]"
    assert all("error" not in event for event in whole[:-1])
    assert after or "x-hf-gateway-served-by" not in answer.headers, "the ping went first, when no target was sure"


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("body", [("/api/chat", {"messages": ASK}), ("/api/generate", {"prompt": "count"})])
def test_a_silent_stream_of_lines_sends_blanks_between_them(
    body: tuple[str, dict[str, object]], after: int, primary: FakeOpenAI
) -> None:
    stall = stall_stream(after)
    primary.fail(stall)
    with (
        gateway_server(chat_chain(primary.url, more=WAITS), ping_seconds=0.05) as server,
        server.client() as client,
        client.stream("POST", body[0], json={"model": "chat", **body[1]}) as answer,
    ):
        text, pings = "", 0
        for piece in answer.iter_text():
            text += piece
            pings += piece == " "
            if pings >= 3:
                stall.release()
    lines = [json.loads(line) for line in text.splitlines()]
    assert pings >= 3
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]


STREAMED = {
    "/v1/chat/completions": {"messages": ASK, "stream": True},
    "/v1/completions": {"prompt": "count", "stream": True, "echo": True},
    "/models/chat/pipeline/text-generation": {"inputs": "count", "stream": True},
    "/api/chat": {"model": "chat", "messages": ASK},
    "/api/generate": {"model": "chat", "prompt": "count"},
    "/huggingface/chat": {"messages": ASK},
}


@pytest.mark.parametrize("path", STREAMED)
def test_the_head_of_a_stream_names_the_target_that_serves(path: str, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    primary.always(Reply(503, {"error": {"message": "busy"}}))
    other = f'{{kind = "openai", url = "{backup.url}", model = "owner/backup"}}'
    config = chat_chain(primary.url, backup.url).replace(f'"openai:{backup.url}"', other)
    with gateway_server(config) as server, server.client() as client:
        answer = client.post(path, json=STREAMED[path])
        primary.recover()
        first = client.post(path, json=STREAMED[path], headers={"x-hf-gateway-target": "0"})
    assert answer.status_code == first.status_code == 200
    names = [each.headers["x-hf-gateway-served-by"] for each in (first, answer)]
    assert names == ["openai:owner/model", "openai:owner/backup"]


@pytest.mark.parametrize(("stream", "after"), [(True, 0), (True, 2), (False, 0), (False, 2)])
def test_a_client_that_leaves_stops_the_work_at_the_target(primary: FakeOpenAI, stream: bool, after: int) -> None:
    """litellm #37140 (whole answers), #31499 (before the first token), #3341: the target went on, and was paid."""
    stall = stall_stream(after)
    primary.always(stall)
    with gateway_server(chat_chain(primary.url, more=WAITS)) as server:
        statuses: list[int] = []
        server.state.ended.append(lambda call, status, seconds: statuses.append(status))
        connection = raw_request(server.url, {"messages": ASK, "stream": stream})
        assert stall.reached.wait(START_S)
        connection.close()
        assert stall.disconnected.wait(START_S)
        wait_until_idle(server)
    assert statuses == [499]


def test_an_answer_to_nobody_is_no_fault(primary: FakeOpenAI, caplog: pytest.LogCaptureFixture) -> None:
    stall = stall_stream(1)
    primary.fail(stall)
    with gateway_server(chat_chain(primary.url, more=WAITS)) as server, server.client() as client:
        connection = raw_request(server.url, {"messages": ASK, "stream": True})
        assert stall.reached.wait(START_S)
        connection.close()
        assert stall.disconnected.wait(START_S)
        wait_until_idle(server)
        assert client.post("/v1/chat/completions", json={"messages": ASK}).status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_the_time_of_a_request_is_bounded(primary: FakeOpenAI) -> None:
    stall = stall_stream(0)
    primary.always(stall)
    with gateway_server(chat_chain(primary.url, more=WAITS), request_seconds=0.2) as server, server.client() as client:
        answer = client.post("/v1/chat/completions", json={"messages": ASK})
        assert stall.disconnected.wait(START_S)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"


@pytest.fixture
def stalled(primary: FakeOpenAI) -> Iterator[HeldStream]:
    """A target whose streams stop after two events until they are released."""
    stall = stall_stream(2)
    primary.always(stall)
    yield stall
    stall.release()


def test_sigterm_lets_a_stream_end(primary: FakeOpenAI, stalled: HeldStream) -> None:
    with ServerProcess(chat_chain(primary.url, more=WAITS), "--grace", "60") as process:
        connection = raw_request(process.url, {"messages": ASK, "stream": True})
        assert stalled.reached.wait(START_S)
        process.signal(signal.SIGTERM)
        stalled.release()
        received = b""
        while part := connection.recv(65536):
            received += part
        assert process.wait() == 0
    assert b"data: [DONE]" in received
    assert received.endswith(b"0\r\n\r\n")


def test_a_stream_that_outlives_the_grace_ends_with_an_error(primary: FakeOpenAI, stalled: HeldStream) -> None:
    with ServerProcess(chat_chain(primary.url, more=WAITS), "--grace", "1") as process:
        connection = raw_request(process.url, {"messages": ASK, "stream": True})
        assert stalled.reached.wait(START_S)
        process.signal(signal.SIGTERM)
        received = b""
        while part := connection.recv(65536):
            received += part
        assert process.wait() == 0
        assert stalled.disconnected.wait(START_S)
    assert b'"code":"shutting_down"' in received
    assert b"[DONE]" not in received
    assert "Traceback" not in process.log


def test_a_second_interrupt_ends_streams_at_once_with_an_error(primary: FakeOpenAI, stalled: HeldStream) -> None:
    with ServerProcess(chat_chain(primary.url, more=WAITS), "--grace", "600") as process:
        connection = raw_request(process.url, {"messages": ASK, "stream": True})
        assert stalled.reached.wait(START_S)
        process.signal(signal.SIGINT)
        until(lambda: not accepts(process.url))
        process.signal(signal.SIGINT)
        received = b""
        while part := connection.recv(65536):
            received += part
        assert process.wait() == 0
    assert b'"code":"shutting_down"' in received
    assert b"[DONE]" not in received
    assert "Traceback" not in process.log


def accepts(url: str) -> bool:
    """Return whether a server accepts connections."""
    try:
        raw_request(url, {}).close()
    except ConnectionError:
        return False
    return True


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_a_client_of_http_1_0_gets_no_chunks(path: str, primary: FakeOpenAI) -> None:
    """Their lengths stood between the lines of the stream, which its client took for lines of it."""
    content = json.dumps({"model": "chat", "messages": ASK, "stream": True})
    with gateway_server(chat_chain(primary.url)) as server:
        with raw_connection(server.url) as connection:
            fields = f"host: localhost\r\ncontent-length: {len(content)}\r\n"
            connection.sendall(f"POST {path} HTTP/1.0\r\n{fields}\r\n{content}".encode())
            head, _, body = received(connection).text.partition("\r\n\r\n")
        whole = exchange(server.url, b"POST /v1/embeddings HTTP/1.0\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}")
    assert "chunked" not in head
    assert "connection: close" in head
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line and line != "data: [DONE]"]
    assert len(lines) >= 2
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert body.endswith("data: [DONE]\n\n" if path.startswith("/v1") else "}\n")
    assert whole.statuses == [400]
    assert "content-length" in whole.text
