"""One exchange over HTTP, on each of the ways it can go: times, broken answers, redirects, keys, what is sent."""

import gzip
import socket
import threading
import traceback
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.http import exchange
from tests.servers.loopback import (
    Exchange,
    Loopback,
    Recorded,
    Reply,
    Silent,
    cut,
    dead_url,
    disconnect,
    drip,
    hang,
    redirect,
)
from tests.support.ways import ASYNC, WAYS, Way

KEY = "the-servers-own-key"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    with Way(request.param, monkeypatch) as made:
        yield made


class Server(Loopback):
    """Answers everything with `answer`."""

    answer = Reply(200, {"ok": True})

    def handle(self, _: Recorded) -> Reply:
        return self.answer


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


class Raw:
    """An answer in the bytes that are given, after which the connection closes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def play(self, exchange: Exchange) -> None:
        exchange.send(self.data)
        exchange.close()


def refused(way: Way, url: str, error: type[Exception], **options: Any) -> errors.GatewayError:
    """Send, and return the error, in which and in whose links is nothing of the libraries."""
    with pytest.raises(error) as caught:
        way.send(url, **options)
    assert isinstance(caught.value, errors.GatewayError)
    linked: BaseException | None = caught.value
    while linked is not None:
        assert type(linked).__module__.partition(".")[0] in ("hf_gateway", "builtins")
        linked = linked.__cause__ or linked.__context__
    return caught.value


# What is sent, and what comes back.


def test_a_post_arrives_as_it_was_given(way: Way, server: Server) -> None:
    way.send(f"{server.url}/a%20b/%C3%A9?q=1%2B1", b'{"input":["x"]}', headers={"accept": "application/json"})
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/a%20b/%C3%A9?q=1%2B1", b'{"input":["x"]}')
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == "15"
    assert request.headers["accept"] == "application/json"
    assert request.headers["host"] == server.url.removeprefix("http://")
    assert request.headers["user-agent"].startswith("hf-gateway/")
    assert "transfer-encoding" not in request.headers


def test_no_header_is_sent_that_was_not_asked_for(way: Way, server: Server) -> None:
    way.send(server.url)
    known = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length"}
    assert set(server.requests[0].headers) <= known


def test_a_get_has_no_body(way: Way, server: Server) -> None:
    assert way.send(f"{server.url}/info", None).status == 200
    assert server.requests[0].method == "GET"
    assert "content-length" not in server.requests[0].headers


def test_an_encoding_that_was_asked_for_is_not_changed(way: Way, server: Server) -> None:
    way.send(server.url, headers={"accept-encoding": "identity"})
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_only_encodings_are_asked_for_that_can_be_read(way: Way, server: Server) -> None:
    way.send(server.url)
    for name in server.requests[0].headers["accept-encoding"].split(","):
        assert name.strip() in ("gzip", "deflate", "zstd", "br")
        if name.strip() in ("zstd", "br"):
            pytest.importorskip({"zstd": "zstandard", "br": "brotli"}[name.strip()])


def test_headers_have_names_in_lower_case_and_one_value_each(way: Way, server: Server) -> None:
    server.always(
        Raw(
            b"HTTP/1.1 200 OK\r\nX-Request-ID: 7\r\nVary: a\r\nvary: b\r\nX-Odd: caf\xe9\r\nContent-Length: 2\r\n\r\n{}"
        )
    )
    response = way.send(server.url)
    assert response.headers["x-request-id"] == "7"
    assert response.headers["vary"] == "a, b"
    assert response.headers["x-odd"] == "café"
    assert response.body == b"{}"


def test_a_long_header_is_taken(way: Way, server: Server) -> None:
    server.always(Reply(200, b"{}", {"content-security-policy": "x" * 20_000}))
    assert len(way.send(server.url).headers["content-security-policy"]) == 20_000


def test_cookies_are_not_kept(way: Way, server: Server) -> None:
    server.always(Reply(200, b"{}", {"set-cookie": "session=1; Path=/"}))
    way.send(server.url)
    way.send(server.url)
    assert "cookie" not in server.requests[1].headers


def test_an_answer_in_chunks_is_put_together(way: Way, server: Server) -> None:
    server.always(Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n"))
    assert way.send(server.url).body == b"[1,2]"


def test_an_answer_without_a_length_ends_with_the_connection(way: Way, server: Server) -> None:
    server.always(Raw(b"HTTP/1.1 200 OK\r\n\r\n[1,2]"))
    assert way.send(server.url).body == b"[1,2]"


def test_an_empty_answer_is_empty(way: Way, server: Server) -> None:
    server.always(Reply(204))
    assert way.send(server.url) == way.send(server.url)
    assert way.send(server.url).body == b""


def test_a_large_answer_is_whole(way: Way, server: Server) -> None:
    server.always(Reply(200, b"x" * 5_000_000))
    assert way.send(server.url).body == b"x" * 5_000_000


def test_a_large_request_is_whole(way: Way, server: Server) -> None:
    way.send(server.url, b"x" * 5_000_000)
    assert server.requests[0].body == b"x" * 5_000_000


def test_an_answer_that_comes_before_the_request_was_read_is_taken(way: Way) -> None:
    head = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_at_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(head)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=answer_at_once)
        thread.start()
        response = way.send(f"http://127.0.0.1:{listener.getsockname()[1]}", b"x" * 3_000_000)
        way.transport.close()
        way.run(way.transport.aclose())
        thread.join(10)
    assert (response.status, response.body) == (413, b"too much")


@pytest.mark.parametrize("way", [name for name in WAYS if name not in ASYNC], indirect=True)
def test_an_answer_of_a_server_that_hung_up_on_the_rest_of_the_request_is_taken(way: Way) -> None:
    head = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_and_hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(head)

        thread = threading.Thread(target=answer_and_hang_up)
        thread.start()
        response = way.send(f"http://127.0.0.1:{listener.getsockname()[1]}", b"x" * 20_000_000)
        thread.join(10)
    assert (response.status, response.body) == (413, b"too much")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_is_unpacked(way: Way, server: Server, encoding: str) -> None:
    packed = gzip.compress(b'{"a":1}') if encoding == "gzip" else zlib.compress(b'{"a":1}')
    server.always(Reply(200, packed, {"content-encoding": encoding}))
    assert way.send(server.url).body == b'{"a":1}'


def test_a_spoilt_compression_is_a_bad_response(way: Way, server: Server) -> None:
    server.always(Reply(200, b"\x1f\x8b nothing of the kind", {"content-encoding": "gzip"}))
    assert "decompressed" in str(refused(way, server.url, errors.BadResponse))


# Sizes.


def test_an_answer_larger_than_any_is_not_read_to_its_end(
    way: Way, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_BODY_BYTES", 2**20)
    server.always(Reply(200, b"x" * (2**20 + 1)))
    assert "more than 1 MB" in str(refused(way, server.url, errors.BadResponse))


def test_an_answer_that_unpacks_to_more_than_any_is_not_unpacked_to_its_end(
    way: Way, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_BODY_BYTES", 2**20)
    server.always(Reply(200, gzip.compress(bytes(50 * 2**20)), {"content-encoding": "gzip"}))
    assert "more than 1 MB" in str(refused(way, server.url, errors.BadResponse))


# Times.


def test_a_silent_server_is_left_after_the_time_for_all_of_it(way: Way, server: Server) -> None:
    server.always(hang())
    error = refused(way, server.url, errors.AttemptTimedOut, timeout=0.2)
    assert f"no whole answer from {server.url} within 0.2 s" in str(error)


def test_a_server_that_trickles_its_answer_is_left_after_the_time_for_all_of_it(way: Way, server: Server) -> None:
    server.always(drip(Reply(200, b"x" * 1000), every=0.02))
    refused(way, server.url, errors.AttemptTimedOut, timeout=0.3)
    assert server.count() == 1


def test_no_time_left_means_that_nothing_is_sent(way: Way, server: Server) -> None:
    refused(way, server.url, errors.AttemptTimedOut, timeout=0.0)
    assert server.count() == 0


def test_a_connection_that_is_not_made_in_its_time_has_failed(way: Way) -> None:
    with Silent(accepts=False) as nobody:
        error = refused(way, nobody.url, errors.ConnectFailed, connect_timeout=0.2)
    assert f"no connection to {nobody.url}" in str(error)


def test_the_time_for_all_of_it_also_ends_the_connecting(way: Way) -> None:
    with Silent(accepts=False) as nobody:
        refused(way, nobody.url, (errors.AttemptTimedOut, errors.ConnectFailed), timeout=0.2)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_looking_up_a_name_belongs_to_connecting(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()

    def look_up(*_: Any, **__: Any) -> Any:
        stuck.wait(10)
        raise socket.gaierror("given up")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        assert "no connection to" in str(refused(way, "http://a.test", errors.ConnectFailed, connect_timeout=0.2))
    finally:
        stuck.set()


def test_a_name_that_nobody_knows_is_no_connection(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    error = refused(way, "http://a.test", errors.ConnectFailed)
    assert "no connection to http://a.test:80" in str(error)
    assert "Name or service not known" in str(error)


# Connections that break.


def test_a_port_where_nobody_listens_is_no_connection(way: Way) -> None:
    url = dead_url()
    error = refused(way, url, errors.ConnectFailed)
    assert f"no connection to {url}" in str(error)
    assert "ssl" not in str(error)


@pytest.mark.parametrize("body", [b"{}", None], ids=["POST", "GET"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_hangs_up_unanswered_is_asked_once(
    way: Way, server: Server, reset: bool, body: bytes | None
) -> None:
    server.always(disconnect(reset=reset))
    assert "broke" in str(refused(way, server.url, errors.ConnectFailed, body=body))
    assert server.count() == 1


def test_a_server_that_hangs_up_on_a_kept_connection_is_asked_once_too(way: Way, server: Server) -> None:
    way.send(server.url)
    server.always(disconnect())
    assert "broke" in str(refused(way, server.url, errors.ConnectFailed))
    assert server.count() == 2
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        cut(b"[[0.1,"),
        Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[0.1,\r\n"),
        Raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
        Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
        Raw(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"),
    ],
    ids=["length", "chunks", "headers", "chunk size", "another protocol"],
)
def test_an_answer_that_is_cut_or_garbled_is_never_a_shorter_one(way: Way, server: Server, answer: Any) -> None:
    server.always(answer)
    assert "broke before the answer was complete" in str(refused(way, server.url, errors.ConnectFailed))


# Redirects.


def test_a_redirect_within_the_origin_is_followed_with_key_and_body(way: Way, server: Server) -> None:
    server.fail(redirect("/there"), redirect(f"{server.url}/yonder", 308))
    assert way.send(f"{server.url}/here", b"[1]", key=KEY).status == 200
    assert [(request.path, request.bearer, request.body) for request in server.requests] == [
        (path, KEY, b"[1]") for path in ("/here", "/there", "/yonder")
    ]


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_on_which_a_post_would_be_lost_is_refused(way: Way, server: Server, status: int) -> None:
    server.always(redirect("/there", status))
    assert "a POST would be lost" in str(refused(way, server.url, errors.BadResponse))
    assert server.count() == 1


def test_a_get_is_redirected_by_any_status(way: Way, server: Server) -> None:
    server.fail(redirect("/b", 301), redirect("/c", 302), redirect("/d", 303))
    assert way.send(f"{server.url}/a", None).status == 200
    assert server.requests[-1].path == "/d"


@pytest.mark.parametrize(
    "location", ["http://127.0.0.2:9/", "//127.0.0.2:9/", "https://127.0.0.1/", "ftp://a/", "mailto:a@b"]
)
def test_a_redirect_to_anywhere_else_is_refused(way: Way, server: Server, location: str) -> None:
    server.always(redirect(location))
    assert "another server" in str(refused(way, server.url, errors.BadResponse, key=KEY))
    assert server.count() == 1


def test_a_redirect_in_a_circle_ends(way: Way, server: Server) -> None:
    server.always(redirect("/again"))
    refused(way, server.url, errors.BadResponse)
    assert server.count() == exchange.MAX_REDIRECTS + 1


def test_all_the_hops_share_one_time(way: Way, server: Server) -> None:
    server.fail(redirect("/there"))
    server.always(hang(), path="/there")
    refused(way, f"{server.url}/here", errors.AttemptTimedOut, timeout=0.3)


# Keys.


def test_a_key_is_sent_to_its_own_origin_only(way: Way, server: Server) -> None:
    with Server() as other:
        way.send(server.url, key=KEY)
        way.send(other.url)
        assert (server.requests[0].bearer, other.requests[0].bearer) == (KEY, None)


def test_a_refusal_that_quotes_the_key_is_given_without_it(way: Way, server: Server) -> None:
    server.always(Reply(401, f"no such key: {KEY}"))
    assert way.send(server.url, key=KEY).body == b"no such key: ***"


@pytest.mark.parametrize(
    "fault",
    [
        Raw(b"HTTP/1.1 200 OK\r\nbroken " + KEY.encode() + b"\r\n\r\n"),
        Raw(KEY.encode() + b" is not HTTP\r\n\r\n"),
        cut(KEY.encode()),
        disconnect(),
        redirect(f"http://127.0.0.2:9/?key={KEY}"),
    ],
    ids=["headers", "status line", "cut", "hung up", "redirect"],
)
def test_no_error_shows_the_key(way: Way, server: Server, fault: Any) -> None:
    server.always(fault)
    error = refused(way, server.url, errors.GatewayError, key=KEY)
    assert server.requests[0].bearer == KEY
    assert KEY not in "".join(traceback.format_exception(error)) + repr(vars(error))


# What cannot be sent.


def test_a_url_that_cannot_be_called_is_the_callers_fault(way: Way) -> None:
    assert "cannot be called" in str(refused(way, "ftp://127.0.0.1/", errors.InvalidRequest))


def test_a_header_that_would_begin_another_is_the_callers_fault(way: Way, server: Server) -> None:
    refused(way, server.url, errors.InvalidRequest, headers={"x-bill-to": "me\r\nx-other: 1"})
    assert server.count() == 0
