"""Requests that two servers could read differently, and other protocols: each is refused, or means one thing."""

import gzip
from collections.abc import Iterator

import pytest

from tests.support.gateway_server import gateway_server
from tests.support.raw_http import BODY, HOST, POST, connected, exchange, received

LIVEZ = b"GET /livez HTTP/1.1\r\n" + HOST
SMUGGLED = b"GET /version HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKS = b"d\r\n" + BODY + b"\r\n0\r\n\r\n"
ENDS = b"content-length: 13\r\n"
PIECES = b"transfer-encoding: chunked\r\n"
UPGRADE = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAA\r\n"
WEBSOCKET = (
    b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
REFUSED = {
    "two lengths": POST + ENDS + b"content-length: 14\r\n\r\n" + BODY,
    "the same length twice": POST + ENDS + ENDS + b"\r\n" + BODY,
    "a list of lengths": POST + b"content-length: 13, 13\r\n\r\n" + BODY,
    "a length with a sign": POST + b"content-length: +13\r\n\r\n" + BODY,
    "a negative length": POST + b"content-length: -1\r\n\r\n" + BODY,
    "a hexadecimal length": POST + b"content-length: 0xd\r\n\r\n" + BODY,
    "a length beyond all numbers": POST + b"content-length: " + b"9" * 40 + b"\r\n\r\n" + BODY,
    "a length, then chunks": POST + ENDS + PIECES + b"\r\n" + CHUNKS,
    "chunks, then a length": POST + PIECES + ENDS + b"\r\n" + CHUNKS,
    "an encoding that is nearly chunked": POST + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunked, identity": POST + b"transfer-encoding: chunked, identity\r\n\r\n" + CHUNKS,
    "chunked and identity in two lines": POST + PIECES + b"transfer-encoding: identity\r\n\r\n" + CHUNKS,
    "identity and chunked in two lines": POST + b"transfer-encoding: identity\r\n" + PIECES + b"\r\n" + CHUNKS,
    "gzip, chunked": POST + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "chunked after a control character": POST + b"transfer-encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "a blank before the colon": POST + b"content-length : 13\r\n\r\n" + BODY,
    "a folded line": POST + b"x: a\r\n content-length: 13\r\n\r\n" + BODY,
    "lines without CR": b"GET /livez HTTP/1.1\nhost: localhost\n\n",
    "lines without LF": b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: a\rauthorization: b\r\n\r\n",
    "a zero byte": LIVEZ + b"x: a\0b\r\n\r\n",
    "a negative chunk": POST + PIECES + b"\r\n-d\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk beyond all numbers": POST + PIECES + b"\r\n" + b"f" * 17 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunks without CR": POST + PIECES + b"\r\nd\n" + BODY + b"\n0\n\n",
    "chunks with more than they say": POST + PIECES + b"\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "the beginning of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "a later version": b"GET /livez HTTP/3.0\r\n" + HOST + b"\r\n",
    "no version": b"GET /livez\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target on another host": b"GET http://evil.example/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a name before the host": b"GET http://localhost@evil.example/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target on another port": b"GET http://localhost:1/livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without a slash": b"GET livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target that is a star": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "two hosts": LIVEZ + b"host: evil.example\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "a WebSocket": LIVEZ + WEBSOCKET + b"\r\n",
    "a WebSocket at an unknown path": b"GET /nowhere HTTP/1.1\r\n" + HOST + WEBSOCKET + b"\r\n",
}
"""Each is answered with 400 once, whatever follows it."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[str]:
    with gateway_server(folder=tmp_path_factory.mktemp("malformed"), keep_alive_seconds=1) as running:
        yield running.url


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_and_nothing_after_it_is_a_request(case: str, url: str) -> None:
    answers = exchange(url, REFUSED[case] + SMUGGLED)
    assert answers.statuses == [400], answers.text


@pytest.mark.parametrize("path", [b"/", b"/livez", b"/v1/models"])
def test_connect_and_trace_are_no_methods_of_a_route(path: bytes, url: str) -> None:
    for method in (b"CONNECT", b"TRACE"):
        answers = exchange(url, method + b" " + path + b" HTTP/1.1\r\n" + HOST + b"x-secret: 1\r\n\r\n")
        assert answers.statuses == [405]
        assert "x-secret" not in answers.text


def test_a_websocket_is_told_what_there_is_instead(url: str) -> None:
    """Answered with 200, its client would see a broken handshake, and try again."""
    answers = exchange(url, LIVEZ + WEBSOCKET + b"\r\n")
    assert "no_websockets" in answers.text
    assert "streams are answers to HTTP requests" in answers.text


@pytest.mark.parametrize("split", [0, 3])
def test_an_offer_of_http2_is_ignored_and_its_body_is_a_body(split: int, url: str) -> None:
    """As Java's client and curl send it. The parser took the body for the next request."""
    with connected(url) as connection:
        for _ in range(2):
            connection.sendall(POST + UPGRADE + b"content-length: 13\r\n\r\n" + BODY[:split])
            connection.sendall(BODY[split:])
            head, _, rest = connection.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(rest) < length:
                rest += connection.recv(65536)
            assert len(rest) == length


def test_a_body_after_an_offer_of_another_protocol_is_no_request(url: str) -> None:
    length = b"content-length: %d\r\n\r\n" % len(SMUGGLED)
    answers = exchange(url, b"POST /livez HTTP/1.1\r\n" + HOST + UPGRADE + length, SMUGGLED)
    assert answers.statuses == [405]


def test_a_request_that_does_not_wait_for_the_answer_before_it_is_not_read(url: str) -> None:
    """They would be kept in any number, and hide that their client has left."""
    answers = exchange(url, (LIVEZ + b"\r\n") * 3)
    assert answers.statuses == [200]


def test_a_line_end_after_a_body_is_no_request(url: str) -> None:
    answers = exchange(url, POST + ENDS + b"\r\n" + BODY + b"\r\n")
    assert answers.statuses == [200]


def test_lines_of_a_trailer_are_no_headers(url: str) -> None:
    """Nobody has checked them when they arrive."""
    trailer = b"connection: close\r\nx-hf-gateway-space: another/model#0123456789ab\r\n\r\n"
    with connected(url) as connection:
        connection.sendall(POST + PIECES + b"\r\nd\r\n" + BODY + b"\r\n")
        connection.sendall(b"0\r\n" + trailer)
        assert received(connection).statuses == [200]


def test_a_compressed_body_is_not_unpacked(url: str) -> None:
    """A few bytes would be a body of any size."""
    body = gzip.compress(BODY)
    head = b"connection: close\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert exchange(url, POST + head + body).statuses == [400]


def test_a_target_on_this_host_is_its_path(url: str) -> None:
    answers = exchange(url, b"GET http://localhost/livez HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\n")
    assert answers.statuses == [200]
    assert answers.text.endswith("ok")


def test_each_request_on_a_connection_has_its_own_answer(url: str) -> None:
    """A body that a refused request did not read is not the next request."""
    refused = b"POST /nowhere HTTP/1.1\r\n" + HOST + b"content-length: %d\r\n\r\n" % len(SMUGGLED)
    with connected(url) as connection:
        connection.sendall(refused)
        assert b"404 Not Found" in connection.recv(65536)
        connection.sendall(SMUGGLED)
        connection.sendall(LIVEZ + b"connection: close\r\n\r\n")
        answers = received(connection)
    assert answers.statuses == [200]
    assert answers.text.endswith("ok")
