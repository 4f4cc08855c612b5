"""Servers that mean ill: whatever they send, and however slowly, an exchange ends in its time and in an error of ours."""

import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from hf_gateway import Gateway, errors
from hf_gateway.http import exchange
from tests.servers.hostile import BEFORE_THE_BODY, PLACES, WITHOUT_CONTENT, Port, spoilt_answers
from tests.servers.loopback import Exchange, Loopback, Recorded, Reply, Silent
from tests.servers.openai import FakeOpenAI
from tests.support.ways import WAYS, Way

TIMEOUT_S = 0.2
"""Ten times what a server trickles by; most of these tests wait it out."""
BOUND_S = TIMEOUT_S + 5.0
"""Seconds that such a call may take on a machine that is busy; the servers go on for longer."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    with Way(request.param, monkeypatch) as made:
        yield made


class Server(Loopback):
    """Answers everything with nothing of note."""

    def handle(self, _: Recorded) -> Reply:
        return Reply(200, {"ok": True})


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


def failure(call: Callable[[], Any], *kinds: type[errors.GatewayError]) -> errors.GatewayError:
    """Return the error of a call that must end within BOUND_S."""
    began = time.monotonic()
    with pytest.raises(errors.GatewayError) as caught:
        call()
    assert time.monotonic() - began < BOUND_S
    assert isinstance(caught.value, kinds)
    return caught.value


# Every place of an exchange, trickled and poured out.


@pytest.mark.parametrize("place", PLACES)
def test_whatever_is_trickled_the_time_for_all_of_it_holds(way: Way, server: Server, place: str) -> None:
    server.always(PLACES[place])
    # Leading zeros of a chunk's size, say, are an error for some libraries before the time is up.
    error = failure(lambda: way.send(server.url, timeout=TIMEOUT_S), errors.AttemptTimedOut, errors.ConnectFailed)
    if isinstance(error, errors.AttemptTimedOut):
        assert f"within {TIMEOUT_S:.3g} s" in str(error)


@pytest.mark.parametrize("place", PLACES)
def test_whatever_is_poured_out_the_time_for_all_of_it_holds(
    way: Way, server: Server, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(exchange, "MAX_BODY_BYTES", 2**20)
    trickle = PLACES[place]
    server.always(replace(trickle, again=trickle.again * 1000, every_s=0.0))
    failure(
        lambda: way.send(server.url, timeout=TIMEOUT_S),
        errors.AttemptTimedOut,
        errors.ConnectFailed,
        errors.BadResponse,
    )


@pytest.mark.parametrize("place", BEFORE_THE_BODY)
def test_a_stream_whose_headers_are_trickled_is_not_opened(way: Way, server: Server, place: str) -> None:
    server.always(PLACES[place])
    failure(lambda: way.open(server.url, timeout=TIMEOUT_S), errors.AttemptTimedOut)


@pytest.mark.parametrize("place", WITHOUT_CONTENT)
def test_a_stream_of_bytes_without_content_stalls(way: Way, server: Server, place: str) -> None:
    server.always(PLACES[place])
    opened = way.open(server.url)
    error = failure(lambda: way.read(opened, TIMEOUT_S), errors.AttemptTimedOut, errors.ConnectFailed)
    way.leave(opened)
    if isinstance(error, errors.AttemptTimedOut):
        assert "nothing more came" in str(error)


@pytest.mark.parametrize("task", ["embedding", "chat"])
@pytest.mark.parametrize("place", ["headers", "chunk extension", "empty blocks of gzip"])
def test_a_gateways_blocking_call_ends_in_its_time(server: Server, task: Any, place: str) -> None:
    server.always(PLACES[place])
    gateway = Gateway("m", [f"openai:{server.url}"], task=task, timeout=TIMEOUT_S, max_retries=0)
    call = gateway.chat if task == "chat" else gateway.embed
    failure(lambda: call(["a"] if task == "embedding" else "hi"), errors.AttemptTimedOut)  # type: ignore[operator]


# Connecting and sending.


def test_a_handshake_that_is_trickled_is_no_connection(way: Way) -> None:
    with Port(b"\x16\x03\x03\x40\x00", b"\x02") as port:
        failure(
            lambda: way.send(f"https://{port.place}/", connect_timeout=TIMEOUT_S, timeout=30.0), errors.ConnectFailed
        )


@pytest.mark.parametrize("place", ["status line", "a header's value", "103 Early Hints"])
def test_a_proxy_that_trickles_is_left(way: Way, server: Server, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("https_proxy", server.url)
    server.always(PLACES[place])
    failure(lambda: way.send("https://a.test/", timeout=TIMEOUT_S), errors.AttemptTimedOut, errors.ConnectFailed)


def test_a_server_that_takes_a_request_a_little_at_a_time_is_left(way: Way) -> None:
    with Port(reads=512) as port:
        failure(lambda: way.send(f"http://{port.place}/", b"x" * 30_000_000, timeout=TIMEOUT_S), errors.AttemptTimedOut)


def test_the_addresses_of_a_name_share_the_time_for_connecting(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    with Silent(accepts=False) as nobody:
        port = int(nobody.url.rpartition(":")[2])
        entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))

        def look_up(host: str, *_: Any, **__: Any) -> Any:
            if host != "many.test":
                raise socket.gaierror(-2, "Name or service not known")
            return [entry] * 40

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        failure(lambda: way.send("http://many.test/", connect_timeout=TIMEOUT_S), errors.ConnectFailed)


# Answers that are larger unpacked.


def _bomb(encoding: str) -> bytes:
    packed = gzip.compress(bytes(60 * 2**20))
    return packed if encoding == "gzip" else gzip.compress(packed) if encoding == "gzip, gzip" else b"\x8b\x0f"


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip", "br", "zstd"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_size_of_an_answer_is_checked_before_it_is_unpacked(
    way: Way, server: Server, monkeypatch: pytest.MonkeyPatch, encoding: str, streamed: bool
) -> None:
    monkeypatch.setattr(exchange, "MAX_BODY_BYTES", 2**20)
    server.always(Reply(200, _bomb(encoding), {"content-encoding": encoding}))

    def call() -> None:
        if streamed:
            way.rest(way.open(server.url))
        else:
            way.send(server.url)

    tracemalloc.start()
    try:
        error = failure(call, errors.BadResponse)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert ("more than 1 MB" if encoding == "gzip" else f"encoding '{encoding}'") in str(error)


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_a_compression_that_ends_too_early_is_never_a_shorter_answer(way: Way, server: Server, cut: int) -> None:
    server.always(Reply(200, gzip.compress(b"[1,2,3]" * 100)[:-cut], {"content-encoding": "gzip"}))
    failure(lambda: way.send(server.url), errors.ConnectFailed)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("deflate", zlib.compress(b"x" * 3_000_000)),
        ("deflate", zlib.compress(b"x" * 3_000_000)[2:-4]),
        ("X-GZIP", gzip.compress(b"x" * 3_000_000)),
        ("identity, gzip", gzip.compress(b"x" * 1_000_000) * 3),
        ("identity", b"x" * 3_000_000),
        ("gzip", b""),
    ],
    ids=["deflate", "bare deflate", "x-gzip", "members", "identity", "empty"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_compressed_answer_is_whole(way: Way, server: Server, encoding: str, packed: bytes, streamed: bool) -> None:
    server.always(Reply(200, packed, {"content-encoding": encoding}))
    found = way.rest(way.open(server.url)) if streamed else way.send(server.url).body
    assert found == (b"x" * 3_000_000 if packed else b"")


# Answers that are garbled.


def test_an_answer_with_spoilt_bytes_is_an_answer_or_an_error_of_ours(way: Way, server: Server) -> None:
    for answer in spoilt_answers(7, 150):
        server.always(Raw(answer))
        try:
            way.send(server.url, timeout=TIMEOUT_S)
        except (errors.ConnectFailed, errors.BadResponse, errors.AttemptTimedOut):
            continue


@pytest.mark.parametrize(
    "place",
    [
        b"http://[",
        b"http://[::1",
        b"http://127.0.0.1:99999/",
        b"http://127.0.0.1:x/",
        b"http://xn--a/",
        b"http://" + b"a" * 64 + b".test/",
        b"/a\x7fb",
        b"/a\x00b",
        b"//",
        b"//:80",
        b"http://",
        b"http:///there",
        b"javascript:alert(1)",
        b"/" + b"a" * 60_000,
        b"/" + b"a" * 70_000,
        b"http://\xff\xfe/",
        b"/caf\xe9",
    ],
    ids=lambda place: repr(place[:30]),
)
def test_a_redirect_to_nonsense_is_the_servers_fault(way: Way, server: Server, place: bytes) -> None:
    server.always(Raw(b"HTTP/1.1 307 X\r\nlocation: " + place + b"\r\ncontent-length: 0\r\n\r\n"))
    error = failure(lambda: way.send(server.url), errors.BadResponse, errors.ConnectFailed)
    assert len(str(error)) < 1000


def test_after_a_redirect_to_nonsense_the_next_target_is_asked(server: Server, primary: FakeOpenAI) -> None:
    server.always(Reply(307, b"", {"location": "http://["}))
    gateway = Gateway("m", [f"openai:{server.url}", f"openai:{primary.url}"], max_retries=0)
    assert len(gateway.embed(["a"]).vectors) == 1


# What the caller, or the environment, says that cannot be called.


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/" + "a" * 70_000, "http://", "http:///a", "127.0.0.1:9", "http://xn--a/"]
)
def test_a_url_that_cannot_be_called_is_named_in_short(way: Way, url: str) -> None:
    error = failure(lambda: way.send(url), errors.InvalidRequest, errors.ConnectFailed)
    assert len(str(error)) < 1000


def test_a_host_with_a_part_that_is_too_long_is_no_connection(way: Way) -> None:
    url = f"http://{'a' * 64}.test/"
    failure(lambda: way.send(url), errors.ConnectFailed, errors.InvalidRequest)


@pytest.mark.parametrize("value", ["a\nb", "caf\xe9", "\u20ac", "a\0b", "\ud800"])
def test_a_header_that_cannot_be_written_is_named_without_its_value(way: Way, server: Server, value: str) -> None:
    error = failure(lambda: way.send(server.url, headers={"x-bill-to": value}), errors.InvalidRequest)
    assert "x-bill-to" in str(error)
    assert value not in str(error)
    assert server.count() == 0


@pytest.mark.parametrize(
    "named",
    [
        "http://me:secret-word@[",
        "nonsense://me:secret-word@127.0.0.1:9",
        "http://me:secret-word@127.0.0.1:99999",
        "http://me:secret-word@:80",
        "http://",
        "://",
        "http://xn--a/",
        "socks5://me:secret-word@127.0.0.1:9",
        "socks4://127.0.0.1:9",
    ],
)
@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_a_proxy_that_cannot_be_one_is_named(
    way: Way, server: Server, monkeypatch: pytest.MonkeyPatch, named: str, variable: str
) -> None:
    if named.startswith("socks5"):
        monkeypatch.setattr("hf_gateway.http.proxies.find_spec", lambda _: None)
    monkeypatch.setenv(variable, named)
    error = failure(lambda: way.send(server.url), errors.ConfigError)
    assert f"the proxy {variable.upper()}=" in str(error)
    assert "secret-word" not in str(error)
    assert server.count() == 0


@pytest.mark.parametrize(
    ("exempt", "called"),
    [
        ("a.test", True),
        (".a.test", True),
        ("A.TEST , b.test", True),
        ("a.test:80", True),
        ("sub.a.test:8000", True),
        ("*", True),
        ("b.test, *", True),
        ("other.test", False),
        ("ba.test", False),
        ("a.tes", False),
        ("a.test:81", False),
        ("", False),
    ],
)
def test_what_no_proxy_says_holds_alike_for_all(
    way: Way, server: Server, monkeypatch: pytest.MonkeyPatch, exempt: str, called: bool
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", exempt)
    host = "sub.a.test:8000" if "8000" in exempt else "sub.a.test:80" if "sub" in exempt else "a.test:80"

    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    if called:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", look_up)
            failure(lambda: way.send(f"http://{host}/"), errors.ConnectFailed)
        assert server.count() == 0
    else:
        assert way.send(f"http://{host}/").status == 200
        assert server.count() == 1


def test_the_threads_that_look_names_up_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with Way("blocking", monkeypatch) as way:
        failure(lambda: way.send("http://a.test/"), errors.ConnectFailed)
    for thread in threading.enumerate():
        if thread.name == "hf-gateway-look-up":
            thread.join(10)
            assert not thread.is_alive()
