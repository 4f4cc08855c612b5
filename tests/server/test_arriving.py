"""Bounds that hold while a request arrives and its answer leaves: sizes, counts, times; with connections as they are."""

import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.loopback import stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import START_S, RunningServer, chat_chain, gateway_server
from tests.support.raw_http import BODY, HOST, POST, connected, drip, exchange, received

LIVEZ = b"GET /livez HTTP/1.1\r\n" + HOST
CLOSE = b"connection: close\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
WIDE = """
[chains.docs]
targets = ["hash:2048"]
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[str]:
    """A server with the bounds that every server has."""
    with gateway_server(folder=tmp_path_factory.mktemp("arriving")) as running:
        yield running.url


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[RunningServer]:
    """A server with bounds of a second."""
    seconds = {"header_seconds": 1, "body_seconds": 1, "unread_seconds": 1, "keep_alive_seconds": 1}
    folder = tmp_path_factory.mktemp("hasty")
    with gateway_server(WIDE, folder=folder, min_body_rate=10_000, **seconds) as running:
        yield running


class TestSizes:
    @pytest.mark.parametrize(
        "begin",
        {
            "a header": LIVEZ + b"x-filling: ",
            "a name of a header": LIVEZ + b"x",
            "a path": b"GET /",
            "a query": b"GET /livez?q=",
            "no method": b"",
        }.items(),
        ids=lambda item: item[0],
    )
    def test_what_never_ends_is_refused_before_its_end(self, begin: tuple[str, bytes], url: str) -> None:
        """CVE-2025-48956: huge headers, which were held in memory whole."""
        answers = exchange(url, begin[1], *[b"x" * 10_000] * 60)
        assert answers.statuses in ([431], [400])
        if begin[1]:
            assert "the headers have more than 32,768 bytes" in answers.text

    def test_a_head_that_is_too_large_at_once_is_refused(self, url: str) -> None:
        answers = exchange(url, LIVEZ + b"x-filling: " + b"x" * 40_000 + b"\r\n\r\n")
        assert answers.statuses == [431]
        assert exchange(url, b"GET /livez?q=" + b"x" * 40_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n").statuses == [431]

    @pytest.mark.parametrize("lines", [101, 40_000])
    def test_many_headers_are_refused(self, lines: int, url: str) -> None:
        answers = exchange(url, b"GET /livez HTTP/1.1\r\n" + b"a:b\r\n" * (lines - 1) + HOST + b"\r\n")
        assert answers.statuses == [431]

    def test_as_many_headers_as_allowed_are_not(self, url: str) -> None:
        answers = exchange(url, LIVEZ + CLOSE + b"x: y\r\n" * 98 + b"\r\n")
        assert answers.statuses == [200]

    @pytest.mark.parametrize(
        "begin",
        {
            "a trailer": CHUNKED + b"d\r\n" + BODY + b"\r\n0\r\nx: ",
            "an extension of a chunk": CHUNKED + b"d;x=",
        }.items(),
        ids=lambda item: item[0],
    )
    def test_what_is_around_a_body_is_bounded(self, begin: tuple[str, bytes], url: str) -> None:
        answers = exchange(url, begin[1], *[b"x" * 10_000] * 60)
        assert answers.statuses == [400]
        assert "too many small pieces, or its trailer is too large" in answers.text

    def test_chunks_of_one_byte_are_a_body(self, url: str) -> None:
        body = json.dumps({"input": "x" * 20_000}).encode()
        pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        answers = exchange(url, POST + CLOSE + b"transfer-encoding: chunked\r\n\r\n", pieces, b"0\r\n\r\n")
        assert answers.statuses == [200]

    def test_a_body_that_is_refused_while_it_arrives_has_an_answer(self, url: str) -> None:
        """Closed at once, the connection would be reset, and the client would see no reason."""
        pieces = [b"x" * 2**20] * 40
        answers = exchange(url, POST + b"content-length: %d\r\n\r\n" % (40 * 2**20), *pieces)
        assert answers.statuses == [413]
        assert "33,554,432 bytes" in answers.text


class TestTimes:
    @pytest.mark.parametrize("begin", [b"GET", LIVEZ, LIVEZ + b"x: y", b"\r\n"])
    def test_a_head_that_is_never_complete(self, begin: bytes, hasty: RunningServer) -> None:
        """Slowloris."""
        answers = exchange(hasty.url, begin)
        assert answers.statuses == [408]
        assert "the headers were not complete after 1 s" in answers.text

    def test_a_head_that_comes_byte_by_byte(self, hasty: RunningServer) -> None:
        assert drip(hasty.url, LIVEZ + b"x: ").statuses in ([408], [])

    def test_a_head_after_an_answered_request(self, hasty: RunningServer) -> None:
        with connected(hasty.url) as connection:
            connection.sendall(LIVEZ + b"\r\n")
            assert connection.recv(65536).endswith(b"ok")
            connection.sendall(LIVEZ)
            assert received(connection).statuses == [408]

    def test_a_connection_that_sends_nothing(self, hasty: RunningServer) -> None:
        assert exchange(hasty.url).data == b""

    def test_a_connection_that_sends_no_further_request(self, hasty: RunningServer) -> None:
        assert exchange(hasty.url, LIVEZ + b"\r\n").statuses == [200]

    @pytest.mark.parametrize("sent", [b"", BODY])
    def test_a_body_that_stops(self, sent: bytes, hasty: RunningServer) -> None:
        answers = exchange(hasty.url, POST + b"content-length: 100\r\n\r\n" + sent)
        assert answers.statuses == [408]
        assert json.loads(answers.text.partition("\r\n\r\n")[2])["error"]["code"] == "body_too_slow"

    def test_a_body_that_comes_byte_by_byte(self, hasty: RunningServer) -> None:
        assert drip(hasty.url, POST + b"content-length: 10000\r\n\r\n").statuses in ([408], [])

    def test_a_body_that_comes_steadily_may_take_longer(self, tmp_path: Path) -> None:
        with gateway_server(folder=tmp_path, body_seconds=0.001, min_body_rate=1) as running:
            body = json.dumps({"input": "x" * 70_000}).encode()
            head = POST + CLOSE + b"content-length: %d\r\n\r\n" % len(body)
            assert exchange(running.url, head + body[:30_000], body[30_000:]).statuses == [200]

    @pytest.mark.parametrize("request_line", [b"GET /livez", b"POST /nowhere"])
    def test_the_rest_of_a_body_that_nobody_reads(self, request_line: bytes, hasty: RunningServer) -> None:
        answers = drip(hasty.url, request_line + b" HTTP/1.1\r\n" + HOST + b"content-length: 100000\r\n\r\n")
        assert answers.statuses in ([200], [404])

    def test_an_answer_that_is_not_read(self, hasty: RunningServer) -> None:
        """Its bytes would be held as long as the client likes."""
        body = json.dumps({"input": ["x"] * 2000}).encode()
        host, _, port = hasty.url.rpartition("/")[2].rpartition(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
            reset = select.poll()
            reset.register(connection, 0)
            assert reset.poll(START_S * 1000), "the server waits for ever"
            connection.settimeout(START_S)
            assert len(received(connection).data) < 2000 * 2048 * 4

    def test_work_under_way_is_not_hurried(self, primary: FakeOpenAI, tmp_path: Path) -> None:
        stall = stall_stream(1)
        primary.fail(stall)
        patient = "attempt_timeout = 300\nfirst_content_timeout = 300\nstall_timeout = 300"
        config = chat_chain(primary.url, more=patient)
        seconds = {"header_seconds": 0.2, "body_seconds": 0.2, "unread_seconds": 0.2, "keep_alive_seconds": 1}
        with gateway_server(config, folder=tmp_path, **seconds) as running:
            body = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
            head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + CLOSE + b"content-length: %d\r\n\r\n" % len(body)
            with connected(running.url) as connection:
                connection.sendall(head + body)
                assert stall.reached.wait(START_S)
                exchange(running.url)  # which sends nothing, so that its end is that of the bounds
                exchange(running.url)
                stall.release()
                answers = received(connection)
        assert answers.statuses == [200]
        assert "data: [DONE]" in answers.text


def test_bounds_are_settings_that_need_a_restart() -> None:
    from hf_gateway.server.dispatch.lifecycle import NEEDS_RESTART

    assert {"header_seconds", "body_seconds", "unread_seconds", "keep_alive_seconds"} <= set(NEEDS_RESTART)
