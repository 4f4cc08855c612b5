"""Answers that are read piece by piece, on each of the ways: times, broken streams, connections given back; and encryption."""

import asyncio
import datetime as dt
import gc
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.http import exchange
from hf_gateway.runtime.effects import Open
from hf_gateway.values.http import HttpRequest
from tests.servers.loopback import (
    HeldStream,
    Loopback,
    Recorded,
    Reply,
    Stream,
    cut_stream,
    disconnect,
    hang,
    redirect,
    stall_stream,
)
from tests.support.ways import ASYNC, WAYS, Way, until

PIECES = (b"one ", b"two ", b"three")


class Teller(Loopback):
    """Tells PIECES, each as a chunk of its own."""

    def handle(self, _: Recorded) -> Reply | Stream:
        return Stream(200, {"content-type": "text/event-stream", "x-request-id": "7"}, PIECES)


@pytest.fixture
def teller() -> Iterator[Teller]:
    with Teller() as made:
        yield made


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    with Way(request.param, monkeypatch) as made:
        yield made


def test_the_headers_are_there_before_the_body(way: Way, teller: Teller) -> None:
    stall = stall_stream(0)
    teller.always(stall)
    opened = way.open(teller.url)
    assert (opened.status, opened.headers["x-request-id"]) == (200, "7")
    stall.release()
    assert way.rest(opened) == b"one two three"
    assert way.read(opened) is None


def test_a_piece_is_given_as_soon_as_it_is_there(way: Way, teller: Teller) -> None:
    pace = HeldStream(lambda pace, pieces: [step for piece in pieces for step in (pace, piece)])
    teller.always(pace)
    opened = way.open(teller.url)
    for piece in PIECES:
        pace.tick()
        assert way.read(opened) == piece
    assert way.read(opened) is None


def test_a_connection_is_used_again_once_its_stream_was_read(way: Way, teller: Teller) -> None:
    for _ in range(3):
        opened = way.open(teller.url)
        assert way.rest(opened) == b"one two three"
        way.leave(opened)
    assert teller.connections == 1


def test_leaving_a_stream_closes_its_connection(way: Way, teller: Teller) -> None:
    stall = stall_stream(1)
    teller.always(stall)
    opened = way.open(teller.url)
    assert way.read(opened) == b"one "
    way.leave(opened)
    assert stall.disconnected.wait(10)
    del opened
    gc.collect()  # a connection that was not given back would complain of it now


def test_silence_within_a_stream_is_an_error_after_its_own_time(way: Way, teller: Teller) -> None:
    teller.always(stall_stream(1))
    opened = way.open(teller.url)
    assert way.read(opened) == b"one "
    with pytest.raises(errors.AttemptTimedOut, match=r"nothing more came from .* within 0\.2 s"):
        way.read(opened, 0.2)
    way.leave(opened)


def test_the_time_of_the_opening_does_not_count_for_the_body(way: Way, teller: Teller) -> None:
    stall = stall_stream(1)
    teller.always(stall)
    opened = way.open(teller.url, timeout=2.0)
    way.read(opened)
    timer = threading.Timer(2.2, stall.release)
    timer.start()
    assert way.rest(opened) == b"two three"
    timer.join()


def test_no_headers_in_time_is_an_error(way: Way, teller: Teller) -> None:
    teller.always(hang())
    with pytest.raises(errors.AttemptTimedOut, match=r"no answer from"):
        way.open(teller.url, timeout=0.2)


@pytest.mark.parametrize("reset", [False, True])
def test_a_stream_that_is_cut_is_an_error_after_what_came(way: Way, teller: Teller, reset: bool) -> None:
    stall = HeldStream(lambda stall, pieces: [pieces[0], stall, *cut_stream(0, reset=reset)._change(Stream())])
    teller.always(stall)
    opened = way.open(teller.url)
    assert way.read(opened) == b"one "
    stall.release()
    with pytest.raises(errors.ConnectFailed, match="broke before the answer was complete"):
        way.rest(opened)
    way.leave(opened)


def test_a_server_that_hangs_up_at_once_is_an_error(way: Way, teller: Teller) -> None:
    teller.always(disconnect())
    with pytest.raises(errors.ConnectFailed, match="broke"):
        way.open(teller.url)
    assert teller.count() == 1


def test_a_stream_larger_than_any_is_not_read_to_its_end(
    way: Way, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MAX_BODY_BYTES", 10)
    opened = way.open(teller.url)
    with pytest.raises(errors.BadResponse, match="more than"):
        way.rest(opened)
    way.leave(opened)


def test_a_stream_is_redirected_within_its_origin(way: Way, teller: Teller) -> None:
    teller.fail(redirect("/there"))
    assert way.rest(way.open(f"{teller.url}/here", key="a-key")) == b"one two three"
    assert [request.bearer for request in teller.requests] == ["a-key", "a-key"]


def test_a_stream_is_not_redirected_elsewhere(way: Way, teller: Teller) -> None:
    teller.always(Reply(307, b"x" * 5_000_000, {"location": "http://127.0.0.2:9/"}))
    with pytest.raises(errors.BadResponse, match="another server") as caught:
        way.open(teller.url)
    way.run(asyncio.sleep(0))
    until(lambda: not teller._connections)
    assert caught.value.__traceback__  # which holds on to all that the call had in its hands


@pytest.mark.parametrize("way", ASYNC, indirect=True)
@pytest.mark.parametrize("end", ["read", "left", "stalled", "cut", "refused", "cancelled"])
def test_however_a_stream_ends_its_place_is_free_again(
    way: Way, teller: Teller, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("over_aiohttp", "over_httpx"):
        monkeypatch.setattr(f"hf_gateway.http.{module}.MAX_CONNECTIONS", 1)
    fault: Any = {"cut": cut_stream(1), "refused": redirect("http://127.0.0.2:9/")}.get(end)
    if fault is None and end != "read":
        fault = stall_stream(1)
    if fault is not None:
        teller.fail(fault)

    async def stream() -> None:
        message = Open(HttpRequest("POST", teller.url, b"{}", {}))
        opened = await way.transport.aopen(message, timeout=5, connect_timeout=5, target="t")
        try:
            if end == "left":
                assert await opened.source.aread(5) == b"one "
            while end != "left" and await opened.source.aread(0.2 if end == "stalled" else 5) is not None:
                pass
        finally:
            await opened.source.aclose()
            await opened.source.aclose()

    async def twice() -> None:
        task = asyncio.create_task(stream())
        if end == "cancelled":
            await asyncio.to_thread(fault.reached.wait, 10)
            task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, (errors.GatewayError, asyncio.CancelledError)) is (end not in ("read", "left"))
        teller.recover()
        await stream() if end == "read" else await asyncio.wait_for(_read(way, teller.url), 10)

    way.run(twice())


async def _read(way: Way, url: str) -> bytes:
    message = Open(HttpRequest("POST", url, b"{}", {}))
    opened = await way.transport.aopen(message, timeout=5, connect_timeout=5, target="t")
    found = b""
    while (piece := await opened.source.aread(5)) is not None:
        found += piece
    await opened.source.aclose()
    return found


# Encryption.


class Encrypted(Loopback):
    """A server with a certificate of its own, for 127.0.0.1 or another name."""

    def __init__(self, folder: Path, name: str = "127.0.0.1") -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certificate = _certificate(folder, name)
        self._context.load_cert_chain(self.certificate)
        super().__init__()
        self.url = self.url.replace("http://", "https://")

    def handle(self, _: Recorded) -> Reply:
        return Reply(200, {"ok": True})

    def _serve(self, connection: Any, number: int) -> None:
        try:
            wrapped = self._context.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            return
        super()._serve(wrapped, number)


def _certificate(folder: Path, name: str) -> Path:
    """Make a certificate that vouches for itself; returns the file with it and its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "test")])
    known: Any = x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([known]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


def test_a_certificate_that_the_environment_trusts_is_trusted(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Encrypted(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        for _ in range(2):
            assert way.send(server.url, key="a-key").status == 200
        way.transport.close()
        way.run(way.transport.aclose())
        assert [request.bearer for request in server.requests] == ["a-key", "a-key"]
        assert server.connections == 1


@pytest.mark.parametrize("name", ["127.0.0.1", "another.test"])
def test_a_certificate_that_nobody_vouches_for_is_refused_and_nothing_is_sent(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with Encrypted(tmp_path, name) as server:
        if name != "127.0.0.1":
            monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        with pytest.raises(errors.ConnectFailed, match=r"(?i)certificate") as caught:
            way.send(server.url, key="a-key")
        assert server.count() == 0
    assert "SSLContext" not in str(caught.value)
