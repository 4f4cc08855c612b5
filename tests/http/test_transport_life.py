"""A transport through its life: what it reads before it calls, what a close and a fork leave of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

from hf_gateway import Gateway, errors
from hf_gateway.http import transport
from hf_gateway.http.transport import HttpTransport
from tests.servers.loopback import Loopback, Recorded, Reply
from tests.support.ways import ASYNC, WAYS, Way, until


class Server(Loopback):
    """Answers everything."""

    def handle(self, _: Recorded) -> Reply:
        return Reply(200, {"ok": True})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Way(getattr(request, "param", "blocking"), monkeypatch) as made:
        yield made


def test_certificates_are_read_before_the_first_call_and_once(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str | None, str | None]] = []
    monkeypatch.setattr(transport, "_certificates", lambda *places: read.append(places))
    monkeypatch.setenv("SSL_CERT_FILE", "file")
    monkeypatch.setenv("SSL_CERT_DIR", "folder")
    way.transport.prepare()
    assert read == [("file", "folder")]


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_the_first_async_call_reads_them_in_a_thread(way: Way, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[bool] = []

    def prepare(_: HttpTransport) -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        prepared.append(True)

    monkeypatch.setattr(HttpTransport, "prepare", prepare)
    way.send(server.url)
    way.send(server.url)
    assert prepared == [True]


@pytest.mark.parametrize("way", WAYS, indirect=True)
@pytest.mark.parametrize("asynchronously", [False, True])
def test_closing_closes_the_connections_of_blocking_calls_although_somebody_has_the_pool(
    way: Way, server: Server, asynchronously: bool
) -> None:
    way.send(server.url)
    held = dict(way.transport._blocking), dict(way.transport._async)
    if asynchronously:
        way.run(way.transport.aclose())
        assert (way.transport._blocking, way.transport._async) == ({}, {})
    else:
        way.transport.close()
        assert way.transport._blocking == {}
    if asynchronously or not way.asynchronous:
        until(lambda: not server._connections)
    assert any(held)


def test_after_a_close_the_environment_is_asked_for_proxies_again_and_not_before(
    way: Way, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server() as proxy:
        way.send(server.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        way.send(server.url)
        assert (server.count(), proxy.count()) == (2, 0)
        way.transport.close()
        way.send(server.url)
        assert (server.count(), proxy.count()) == (2, 1)


def test_a_child_has_neither_the_connections_of_its_parent_nor_a_lock_that_a_thread_holds_there(
    way: Way, server: Server
) -> None:
    way.send(server.url)
    parents = way.transport._blocking
    with way.transport._lock:
        transport._leave_to_parents()
        way.send(server.url)
    assert server.connections == 2
    for pool in parents.values():
        pool.close()


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_at_the_end_of_the_process_a_loops_pool_is_left_as_it_is(way: Way, server: Server) -> None:
    way.send(server.url)
    (kept,) = way.transport._async.values()
    transport._leave_all()
    way.run(way.transport.aclose())
    assert not kept.pool.closed
    way.run(kept.pool.aclose())


@pytest.mark.parametrize(
    ("places", "read"),
    [
        (("a file", None), {"cafile": "a file"}),
        (("a file", "a folder"), {"cafile": "a file"}),
        ((None, "a folder"), {"capath": "a folder"}),
        ((None, None), {"cafile": certifi.where()}),
        (("", ""), {"cafile": certifi.where()}),
    ],
)
def test_certificates_come_from_where_the_environment_says_or_from_certifi(
    monkeypatch: pytest.MonkeyPatch, places: tuple[str | None, str | None], read: dict[str, str]
) -> None:
    monkeypatch.setattr(transport.ssl, "create_default_context", lambda **told: told)
    assert transport._certificates.__wrapped__(*places) == read


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_without_certificates_is_named_with_its_variable(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    file = tmp_path / "certificates.pem"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    gateway = Gateway("m", [f"tei:{server.url}"])
    with pytest.raises(errors.ConfigError, match=r"SSL_CERT_FILE names .*certificates.pem.*unset the variable"):
        gateway.embed(["x"])
    assert server.count() == 0
