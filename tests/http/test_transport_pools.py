"""Connections: kept and used again, how many at once, given up when nobody wants the answer, closed in the end; by whom."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hf_gateway import Gateway, errors
from hf_gateway.http.exchange import Exchange
from hf_gateway.http.transport import HttpTransport
from hf_gateway.runtime.effects import Send
from hf_gateway.values.http import HttpRequest
from tests.servers.loopback import Loopback, Recorded, Reply, hang
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED
from tests.support.ways import ASYNC, WAYS, Way, until

if COLLECTED:
    from hf_gateway.http import over_aiohttp


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    with Way(request.param, monkeypatch) as made:
        yield made


class Server(Loopback):
    """Answers everything."""

    def handle(self, _: Recorded) -> Reply:
        return Reply(200, {"ok": True})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


# Kept and used again.


def test_one_connection_serves_request_after_request(way: Way, server: Server) -> None:
    for _ in range(5):
        way.send(server.url)
    assert (server.count(), server.connections) == (5, 1)


def test_a_connection_is_used_again_after_a_refusal(way: Way, server: Server) -> None:
    server.fail(Reply(429, "slow down"))
    assert [way.send(server.url).status for _ in range(2)] == [429, 200]
    assert (server.count(), server.connections) == (2, 1)


def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used(way: Way, server: Server) -> None:
    # The loop stands still between the two calls, so it has not heard that the server hung up.
    for round_ in range(1, 4):
        assert way.send(server.url).status == 200
        server.drop_connections()
        assert (server.count(), server.connections) == (round_, round_)


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_all_connections_that_the_server_has_closed_meanwhile_are_passed_over(way: Way, server: Server) -> None:
    held = hang()
    server.always(held)

    async def at_once() -> list[Any]:
        calls = [asyncio.create_task(_asend(way, server.url)) for _ in range(4)]
        await asyncio.to_thread(server.wait_for, 4)
        held.release()
        return await asyncio.gather(*calls)

    way.run(at_once())
    assert server.connections == 4
    server.drop_connections()
    assert way.send(server.url).status == 200
    assert (server.count(), server.connections) == (5, 5)


async def _asend(way: Way, url: str, timeout: float = 10.0, connect_timeout: float = 5.0, body: bytes = b"{}") -> Any:
    wish = Send(HttpRequest("POST", url, body, {"content-type": "application/json"}))
    return await way.transport.asend(wish, timeout=timeout, connect_timeout=connect_timeout, target="t")


# Many at once.


@pytest.mark.parametrize("way", ["async over aiohttp"], indirect=True)
def test_512_requests_are_under_way_at_once(way: Way) -> None:
    async def all_at_once() -> int:
        everybody = asyncio.Barrier(512)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"{}")
            await everybody.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()

        listening = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        answers = await asyncio.gather(*(_asend(way, url, 60.0, 60.0) for _ in range(512)))
        await way.transport.aclose()
        listening.close()
        return sum(answer.status == 200 for answer in answers)

    assert way.run(all_at_once()) == 512


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_waiting_for_a_place_is_not_taken_for_connecting(
    way: Way, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("over_aiohttp", "over_httpx"):
        monkeypatch.setattr(f"hf_gateway.http.{module}.MAX_CONNECTIONS", 2)
    held = hang()
    server.always(held)

    async def crowded() -> None:
        first = [asyncio.create_task(_asend(way, server.url)) for _ in range(2)]
        await asyncio.to_thread(server.wait_for, 2)
        with pytest.raises(errors.AttemptTimedOut):
            await _asend(way, server.url, timeout=0.4, connect_timeout=0.1)
        held.release()
        await asyncio.gather(*first)
        assert (await _asend(way, server.url)).status == 200

    way.run(crowded())
    assert (server.count(), server.connections) == (3, 2)


# Given up.


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_cancelling_closes_the_connection_at_once(way: Way) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        async def leave() -> socket.socket:
            call = asyncio.create_task(_asend(way, url))
            connection, _ = await asyncio.to_thread(listener.accept)
            await asyncio.to_thread(connection.recv, 65536)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            return connection

        with way.run(leave()) as connection:
            connection.settimeout(10)
            while connection.recv(65536):
                pass


@pytest.mark.parametrize("answer", ["too large", "a redirect elsewhere"])
def test_an_answer_that_is_not_read_to_its_end_closes_its_connection(
    way: Way, server: Server, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr("hf_gateway.http.exchange.MAX_BODY_BYTES", 1000)
    headers = {"location": "http://127.0.0.2:9/"} if answer != "too large" else {}
    server.always(Reply(307 if headers else 200, b"x" * 5_000_000, headers))
    with pytest.raises(errors.BadResponse) as caught:
        way.send(server.url)
    way.run(asyncio.sleep(0))
    until(lambda: not server._connections)
    assert caught.value.__traceback__  # which holds on to all that the call had in its hands


@pytest.mark.parametrize("way", ASYNC, indirect=True)
@pytest.mark.parametrize("end", ["cancelled", "timed out"])
def test_a_request_that_nobody_reads_is_given_up_with_what_is_left_of_it(way: Way, end: str) -> None:
    body = b"x" * 40_000_000
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        async def leave() -> socket.socket:
            call = asyncio.create_task(_asend(way, url, 0.5 if end == "timed out" else 30.0, body=body))
            connection, _ = await asyncio.to_thread(listener.accept)
            await asyncio.to_thread(connection.recv, 1000)
            if end == "cancelled":
                call.cancel()
            with pytest.raises((asyncio.CancelledError, errors.AttemptTimedOut)):
                await call
            await asyncio.sleep(0)
            return connection

        came = 0
        with way.run(leave()) as connection:
            connection.settimeout(10)
            # The loop stands still, so nothing more can be sent; a RST ends it, too.
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(2**20):
                    came += len(piece)
        assert came < len(body) / 2


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_a_call_that_was_cancelled_leaves_its_place(way: Way, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("over_aiohttp", "over_httpx"):
        monkeypatch.setattr(f"hf_gateway.http.{module}.MAX_CONNECTIONS", 1)
    server.fail(hang())

    async def twice() -> int:
        call = asyncio.create_task(_asend(way, server.url))
        await asyncio.to_thread(server.wait_for, 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return int((await _asend(way, server.url)).status)

    assert way.run(twice()) == 200


# Event loops and processes.


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_each_event_loop_has_connections_of_its_own_which_end_with_it(way: Way, server: Server) -> None:
    for round_ in range(1, 4):
        assert asyncio.run(_asend(way, server.url)).status == 200
        assert server.connections == round_
        until(lambda: not server._connections)


@pytest.mark.parametrize("way", ASYNC, indirect=True)
@pytest.mark.filterwarnings("ignore:asynchronous generator:ResourceWarning")
def test_a_loop_that_ended_its_generators_and_goes_on_connects_anew(way: Way, server: Server) -> None:
    way.send(server.url)
    way.run(way.runner.get_loop().shutdown_asyncgens())
    assert way.send(server.url).status == 200
    assert server.connections == 2


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_loops_that_are_closed_are_forgotten(way: Way, server: Server) -> None:
    for _ in range(5):
        asyncio.run(_asend(way, server.url))
    assert len(way.transport._async) == 1


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_a_transport_that_nobody_has_any_more_closes_its_connections(
    server: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, way: Way
) -> None:
    async def use_and_drop() -> None:
        await _asend(way, server.url)
        assert len(server._connections) == 1
        way.transport = HttpTransport()
        import gc

        gc.collect()
        await asyncio.to_thread(until, lambda: not server._connections)

    way.run(use_and_drop())


@pytest.mark.parametrize("way", ASYNC, indirect=True)
def test_a_transport_that_was_closed_opens_again(way: Way, server: Server) -> None:
    async def again() -> None:
        for round_ in range(1, 3):
            await _asend(way, server.url)
            await way.transport.aclose()
            assert server.connections == round_
            await asyncio.to_thread(until, lambda: not server._connections)

    way.run(again())


class Echo(Loopback):
    """Answers with what was asked."""

    def handle(self, request: Recorded) -> Reply:
        return Reply(200, request.body)


@pytest.mark.parametrize("way", [name for name in WAYS if name not in ASYNC], indirect=True)
def test_blocking_calls_of_many_threads_do_not_mix(way: Way) -> None:
    wrong: list[bytes] = []

    def ask(number: int) -> None:
        wrong.extend(answer for _ in range(5) if (answer := way.send(echo.url, b"%d" % number).body) != b"%d" % number)

    with Echo() as echo:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert (echo.count(), wrong) == (80, [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_child_has_connections_of_its_own(way: Way, server: Server) -> None:
    way.send(server.url)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            if way.asynchronous:
                way.runner = asyncio.Runner()
            status = 0 if way.send(server.url).status == 200 else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    way.send(server.url)
    assert (server.count(), server.connections) == (3, 2)


@pytest.mark.parametrize("library", ["aiohttp", "httpx"])
@pytest.mark.parametrize(
    "ending",
    [
        "asyncio.run(ask())",
        "loop = asyncio.new_event_loop(); loop.run_until_complete(ask())",
        "loop = asyncio.new_event_loop(); loop.run_until_complete(ask()); loop.close()",
        "loop = asyncio.new_event_loop(); loop.run_until_complete(ask()); del gateway; loop.run_until_complete(asyncio.sleep(0))",
    ],
    ids=["run", "left open", "closed by hand", "dropped"],
)
def test_a_program_that_closes_nothing_ends_in_silence(primary: FakeOpenAI, library: str, ending: str) -> None:
    code = f"""
        import asyncio
        from hf_gateway import Gateway
        gateway = Gateway("m", ["openai:{primary.url}"], query_prompt="")
        async def ask():
            await gateway.aembed(["one"])
        {ending}
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HF_GATEWAY_HTTP": library},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert primary.count() == 1


# Who carries the calls.


def test_aiohttp_carries_async_calls_where_it_is_installed(primary: FakeOpenAI) -> None:
    asyncio.run(Gateway("m", [f"openai:{primary.url}"]).aembed(["one"]))
    assert "connection" not in primary.requests[0].headers  # which httpx sends, and HTTP/1.1 can do without


def test_the_environment_has_async_calls_go_over_httpx(primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_GATEWAY_HTTP", "httpx")
    asyncio.run(Gateway("m", [f"openai:{primary.url}"]).aembed(["one"]))
    assert primary.requests[0].headers["connection"] == "keep-alive"


def test_without_aiohttp_httpx_does_the_same(primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "hf_gateway.http.over_aiohttp", raising=False)
    result = asyncio.run(Gateway("m", [f"openai:{primary.url}"]).aembed(["one"]))
    assert len(result.vectors) == 1
    assert primary.requests[0].headers["connection"] == "keep-alive"


def test_aiohttp_that_is_insisted_on_and_missing_is_named_with_its_extra(
    primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "hf_gateway.http.over_aiohttp", raising=False)
    monkeypatch.setenv("HF_GATEWAY_HTTP", "aiohttp")
    with pytest.raises(errors.ConfigError, match=r"hf-gateway\[fast\]"):
        asyncio.run(Gateway("m", [f"openai:{primary.url}"]).aembed(["one"]))


def test_a_library_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_GATEWAY_HTTP", "requests")
    with pytest.raises(errors.ConfigError, match="'aiohttp' or 'httpx'"):
        Gateway("m", ["openai:http://127.0.0.1:9"])


def test_the_first_async_call_reads_no_file_on_the_event_loop(primary: FakeOpenAI) -> None:
    code = f"""
        import asyncio, sys, threading
        from blockbuster import blockbuster_ctx
        from hf_gateway import Gateway

        class Seen:
            names = []
            def find_spec(self, name, *_):
                ours = name.partition(".")[0] in ("aiohttp", "yarl", "httpx", "httpcore", "certifi", "orjson")
                if ours and threading.current_thread() is threading.main_thread():
                    self.names.append(name)

        gateway = Gateway("m", ["openai:{primary.url}"], query_prompt="")
        async def ask():
            sys.meta_path.insert(0, Seen())
            with blockbuster_ctx():
                await gateway.aembed(["one"])
                await gateway.aclose()
        asyncio.run(ask())
        assert "aiohttp" in sys.modules
        assert Seen.names == [], Seen.names
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# Proxies.


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A proxy that answers itself, named by the environment."""
    with Server() as made:
        monkeypatch.setenv("HTTP_PROXY", made.url)
        monkeypatch.setenv("http_proxy", made.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield made


def test_a_proxy_that_the_environment_names_is_called(way: Way, server: Server, proxy: Server) -> None:
    assert way.send(f"{server.url}/path").status == 200
    assert server.count() == 0
    assert proxy.requests[0].target == f"{server.url}/path"


def test_a_proxy_is_not_called_for_hosts_that_are_exempt(
    way: Way, server: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "localhost, 127.0.0.1")
    assert way.send(server.url).status == 200
    assert (server.count(), proxy.count()) == (1, 0)
    # And by the quick way, which the header tells that only httpx's client sends and the async one of aiohttp does not.
    assert ("connection" in server.requests[0].headers) is (way.name != "async over aiohttp")


def test_a_proxy_that_is_for_another_scheme_is_not_called(
    way: Way, server: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("https_proxy", proxy.url)
    assert way.send(server.url).status == 200
    assert (server.count(), proxy.count()) == (1, 0)


def test_a_proxy_for_everything_is_called_for_everything(
    way: Way, server: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("all_proxy", proxy.url)
    assert way.send(server.url).status == 200
    assert (server.count(), proxy.count()) == (0, 1)


def test_what_a_closed_pool_says_to_who_is_on_the_way_is_an_error_of_ours(server: Server) -> None:
    exchange = Exchange(Send(HttpRequest("GET", server.url, None, {})), 1.0, 1.0, "openai")
    for words in ("Connection closed.", "Session is closed", "Connector is closed."):
        found = over_aiohttp.failure(exchange, RuntimeError(words))
        assert isinstance(found, errors.ConnectFailed)
        assert "closed meanwhile" in str(found)
    assert over_aiohttp.failure(exchange, RuntimeError("something else")) is None
