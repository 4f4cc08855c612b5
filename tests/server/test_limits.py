"""Limits of callers: requests and tokens a minute, requests under way; in one process, and over replicas by a real Redis."""

import asyncio
import contextlib
import functools
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from hf_gateway.errors import ConfigError
from hf_gateway.server.dispatch.limit_stores import MemoryStore
from tests.server.test_openai_chat import ASK, sdk
from tests.server.test_streams import WAITS, raw_request, wait_until_idle
from tests.servers.chat import script
from tests.servers.issuer import AUDIENCE, JWKS, FakeIssuer
from tests.servers.loopback import HeldStream, Reply, error_in_stream, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import HASH_CHAIN, START_S, RunningServer, ServerProcess, chat_chain, gateway_server
from tests.support.late import COLLECTED
from tests.support.redis_servers import RedisServer, redis_server
from tests.support.server_keys import bearer, make_key

if COLLECTED:
    import openai

LEASES = "hf-gateway:limits:leases/*"
NONE = b"*0\r\n"
"""Redis's answer for an empty list."""


@pytest.fixture
def database() -> str:
    return f"sqlite:///{Path.cwd() / 'keys.sqlite'}"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@contextlib.contextmanager
def replicas(database: str, redis: RedisServer, config: str = HASH_CHAIN) -> Iterator[list[RunningServer]]:
    """Two servers with one Redis."""
    with (
        gateway_server(config, database=database, redis=redis.url) as one,
        gateway_server(config, database=database, redis=redis.url) as other,
    ):
        yield [one, other]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what another process or thread does."""
    end = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < end, what
        threading.Event().wait(0.02)


def embed(client: httpx.Client, key: str) -> httpx.Response:
    return client.post("/v1/embeddings", json={"input": "x"}, headers=bearer(key))


def embed_many(servers: list[RunningServer], key: str, times: int) -> Counter[int]:
    """Send requests to servers in turn, eight at a time; returns how often each status came."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        clients = [stack.enter_context(server.client()) for server in servers]
        answers = pool.map(lambda number: embed(clients[number % len(clients)], key).status_code, range(times))
        return Counter(answers)


def metric(server: RunningServer, line: str, key: str) -> str | None:
    """Return the value of a metric, by its name with its labels."""
    with server.client() as client:
        text = client.get("/metrics", headers=bearer(key)).text
    return next((each.rpartition(" ")[2] for each in text.splitlines() if each.startswith(f"{line} ")), None)


def _has_no_notes(server: RunningServer) -> bool:
    return not server.state.notes


class TestCountsOfOneProcess:
    """Over minutes, which a server's test cannot wait for: by a clock of the test's own."""

    def test_no_minute_ever_has_more_than_the_limit(self) -> None:
        clock = [1000.0]
        store, admitted = MemoryStore(lambda: clock[0]), list[float]()
        for step in range(2000):
            clock[0] += step % 7 / 10
            window = asyncio.run(store.count_request("caller", 50))
            if window.admitted:
                admitted.append(clock[0])
            within = sum(clock[0] - 60 < each for each in admitted)
            assert within <= 50
            assert window.remaining == 50 - within
            assert window.admitted or within == 50
        assert len(admitted) > 400

    def test_a_refusal_says_when_there_is_room_again(self) -> None:
        clock = [0.0]
        store = MemoryStore(lambda: clock[0])
        for second in (0.0, 10.0):
            clock[0] = second
            asyncio.run(store.count_request("caller", 2))
        clock[0] = 25.0
        assert asyncio.run(store.count_request("caller", 2)) == (False, 0, 35.0)
        clock[0] = 59.9
        assert not asyncio.run(store.count_request("caller", 2)).admitted
        clock[0] = 60.0
        assert asyncio.run(store.count_request("caller", 2)).admitted

    def test_callers_and_minutes_that_are_over_take_no_memory(self) -> None:
        clock = [0.0]
        store = MemoryStore(lambda: clock[0])

        async def use(minute: int) -> None:
            for number in range(300):
                await store.count_request(f"caller {minute} {number}", 5)
                assert await store.add_tokens(f"caller {minute} {number}", minute, 7) == 7

        for minute in range(9):
            clock[0] = minute * 60.0
            asyncio.run(use(minute))
        assert len(store) <= 2 * 2 * 300

    def test_a_reservation_is_settled_in_the_minute_before(self) -> None:
        async def tokens() -> list[int]:
            store = MemoryStore()
            await store.add_tokens("caller", 7, 100)
            await store.add_tokens("caller", 8, 5)
            return [await store.add_tokens("caller", *each) for each in ((7, -100), (8, 0), (9, 0))]

        assert asyncio.run(tokens()) == [0, 5, 0]


class TestRequests:
    def test_exactly_the_limit_is_admitted(self, database: str) -> None:
        key, other = make_key(database, requests_per_minute=5), make_key(database, requests_per_minute=5)
        with gateway_server(database=database) as server:
            assert embed_many([server], key, 20) == {200: 5, 429: 15}
            assert embed_many([server], other, 5) == {200: 5}

    def test_the_headers_and_the_error_are_those_that_openais_clients_read(self, database: str) -> None:
        key = make_key(database, requests_per_minute=2)
        with gateway_server(database=database) as server, server.client() as client:
            first, _, refused = (embed(client, key) for _ in range(3))
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert 0 < int(first.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert refused.headers["x-should-retry"] == "true"
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert "2 requests in a minute" in refused.json()["error"]["message"]

    def test_the_openai_package_raises_its_error_for_it(self, database: str) -> None:
        key = make_key(database, requests_per_minute=1)
        with gateway_server(database=database) as server:
            client = sdk(server, max_retries=0).with_options(api_key=key)
            client.embeddings.create(model="docs", input="x")
            with pytest.raises(openai.RateLimitError) as caught:
                client.embeddings.create(model="docs", input="x")
        assert caught.value.code == "rate_limit_exceeded"

    @pytest.mark.parametrize(
        ("path", "body", "shape"),
        [
            ("/tei/docs/embed", {"inputs": "x"}, {"error", "error_type", "code"}),
            ("/api/embed", {"model": "docs", "input": "x"}, {"error", "code"}),
            ("/admin/reload", None, {"error", "code"}),
        ],
    )
    def test_each_surface_has_its_shape_of_the_error(
        self, path: str, body: Any, shape: set[str], database: str
    ) -> None:
        key = make_key(database, requests_per_minute=1)
        with gateway_server(database=database) as server, server.client() as client:
            embed(client, key)
            refused = client.post(path, json=body, headers=bearer(key))
        assert refused.status_code == 429
        assert set(refused.json()) == shape

    def test_a_key_without_limits_never_reaches_for_the_limiter(self, database: str) -> None:
        key, limited = make_key(database), make_key(database, requests_per_minute=9)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            url = f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
            with gateway_server(database=database, redis=url) as server, server.client() as client:
                answer = embed(client, key)
                with pytest.raises(BlockingIOError):
                    listening.accept()
                # The same server does ask for a key that has one.
                thread = threading.Thread(target=embed, args=(client, limited))
                thread.start()
                listening.settimeout(START_S)
                listening.accept()[0].close()
                listening.close()
                thread.join(START_S)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]

    def test_tokens_of_an_issuer_have_the_limits_that_its_settings_say(self, database: str) -> None:
        with FakeIssuer() as issuer:
            jwt = (
                f'[server.jwt."{issuer.url}"]\naudience = ["{AUDIENCE}"]\njwks_url = "{issuer.url}{JWKS}"\n'
                "requests_per_minute = 2\n"
            )
            with gateway_server(HASH_CHAIN + jwt, database=database) as server:
                assert embed_many([server], issuer.token(), 5) == {200: 2, 429: 3}
                assert embed_many([server], issuer.token(sub="another"), 2) == {200: 2}


def within_one_minute(work: Callable[[], list[httpx.Response]]) -> list[httpx.Response]:
    """Return what requests were answered that began and ended in the same minute of the clock."""
    while True:
        minute = time.time() // 60
        answers = work()
        if time.time() // 60 == minute:
            return answers


class TestTokens:
    def test_what_answers_used_blocks_the_next_request(self, primary: FakeOpenAI, database: str) -> None:
        primary.brain = script("word " * 50)
        with gateway_server(chat_chain(primary.url), database=database) as server, server.client() as client:

            def work() -> list[httpx.Response]:
                key = bearer(make_key(database, tokens_per_minute=10))
                return [client.post("/v1/chat/completions", json={"messages": ASK}, headers=key) for _ in range(2)]

            first, second = within_one_minute(work)
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-tokens"] == first.headers["x-ratelimit-remaining-tokens"] == "10"
        assert first.json()["usage"]["total_tokens"] > 10
        assert second.status_code == 429
        assert second.headers["x-ratelimit-remaining-tokens"] == "0"
        assert 0 < int(second.headers["retry-after"]) <= 60
        assert "tokens in a minute" in second.json()["error"]["message"]

    def test_the_usage_of_a_stream_counts(self, primary: FakeOpenAI, database: str) -> None:
        primary.brain = script("word " * 50)
        body = {"messages": ASK, "stream": True}
        with gateway_server(chat_chain(primary.url), database=database) as server, server.client() as client:

            def work() -> list[httpx.Response]:
                key = bearer(make_key(database, tokens_per_minute=10))
                return [client.post("/v1/chat/completions", json=body, headers=key) for _ in range(2)]

            assert [each.status_code for each in within_one_minute(work)] == [200, 429]

    @pytest.mark.parametrize("shared", [False, True])
    def test_what_requests_ask_for_is_reserved_until_they_have_answered(
        self, shared: bool, primary: FakeOpenAI, database: str, tmp_path: Path
    ) -> None:
        primary.brain = script("one two three")
        body = {"messages": ASK, "max_tokens": 600}
        with contextlib.ExitStack() as stack:
            url = stack.enter_context(redis_server(tmp_path)).url if shared else None
            config = chat_chain(primary.url, more=WAITS)
            server = stack.enter_context(gateway_server(config, database=database, redis=url))
            client = stack.enter_context(server.client())

            def work() -> list[httpx.Response]:
                stall = stall_stream(0)
                primary.fail(stall)
                key = make_key(database, tokens_per_minute=1000)
                with contextlib.closing(raw_request(server.url, body, **bearer(key))) as held:
                    assert stall.reached.wait(START_S)
                    refused = client.post("/v1/chat/completions", json=body, headers=bearer(key))
                    fits = client.post("/v1/chat/completions", json={**body, "max_tokens": 100}, headers=bearer(key))
                    stall.release()
                    assert held.recv(65536).startswith(b"HTTP/1.1 200")
                wait_until_idle(server)
                return [
                    refused,
                    fits,
                    client.post("/v1/chat/completions", json=body, headers=bearer(key)),
                    client.post("/v1/chat/completions", json={**body, "max_tokens": 1001}, headers=bearer(key)),
                ]

            refused, fits, after, never = within_one_minute(work)
        assert [each.status_code for each in (refused, fits, after, never)] == [429, 200, 200, 429]
        assert refused.headers["x-should-retry"] == "true"
        assert int(after.headers["x-ratelimit-remaining-tokens"]) > 900
        assert never.headers["x-should-retry"] == "false"
        assert "retry-after" not in never.headers

    def test_bodies_of_all_surfaces_say_what_they_ask_for(self) -> None:
        from hf_gateway.server.dispatch.limits import asked_tokens

        bodies: list[Any] = [
            {"max_tokens": 7},
            {"max_tokens": 3, "max_completion_tokens": 7},
            {"parameters": {"max_new_tokens": 7}},
            {"options": {"num_predict": 7}},
            {"options": {"num_predict": 7.0}},
        ]
        assert [asked_tokens(body) for body in bodies] == [7] * 5
        assert [asked_tokens(body) for body in (None, {}, {"options": {"num_predict": -1}})] == [0, 0, 0]

    def test_a_request_for_several_answers_asks_for_the_tokens_of_each(
        self, primary: FakeOpenAI, database: str
    ) -> None:
        """A key with 1,000 tokens a minute got 8 answers of 1,000 tokens each."""
        primary.brain = script("one two three")
        with (
            gateway_server(chat_chain(primary.url, more=WAITS), database=database) as server,
            server.client() as client,
        ):
            headers = bearer(make_key(database, tokens_per_minute=1000))

            def status(path: str, body: dict[str, Any]) -> int:
                return client.post(path, json=body, headers=headers).status_code

            def work() -> list[int]:
                return [
                    status("/v1/chat/completions", {"messages": ASK, "max_tokens": 300, "n": 4}),
                    status("/v1/completions", {"prompt": ["a", "b", "c", "d"], "max_tokens": 300}),
                    status("/models/chat", {"inputs": ["a", "b", "c", "d"], "parameters": {"max_new_tokens": 300}}),
                    status("/v1/chat/completions", {"messages": ASK, "max_tokens": 300, "n": 3}),
                ]

            assert within_one_minute(work) == [429, 429, 429, 200]


@contextlib.contextmanager
def held_request(server: RunningServer, stall: HeldStream, key: str, *, stream: bool = True) -> Iterator[socket.socket]:
    """A chat request that has reached a target that does not answer."""
    connection = raw_request(server.url, {"messages": ASK, "stream": stream}, **bearer(key))
    with contextlib.closing(connection):
        assert stall.reached.wait(START_S)
        yield connection


def chat(server: RunningServer, key: str, **body: Any) -> httpx.Response:
    with server.client() as client:
        return client.post("/v1/chat/completions", json={"messages": ASK, **body}, headers=bearer(key))


class TestParallel:
    def test_one_more_than_the_limit_is_refused(self, primary: FakeOpenAI, database: str) -> None:
        key = make_key(database, parallel=1)
        stall = stall_stream(1)
        primary.fail(stall)
        with (
            gateway_server(chat_chain(primary.url, more=WAITS), database=database) as server,
            held_request(server, stall, key) as connection,
        ):
            refused = chat(server, key)
            stall.release()
            while connection.recv(65536)[-5:] != b"0\r\n\r\n":
                pass
            wait_until_idle(server)
            assert chat(server, key).status_code == 200
            assert server.state.limits.slots == {}
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-should-retry"] == "true"
        assert "1 requests under way" in refused.json()["error"]["message"]

    @pytest.mark.parametrize("shared", [False, True])
    @pytest.mark.parametrize(
        "ending", ["left", "left stream", "error", "error in stream", "late", "invalid", "refused"]
    )
    def test_a_slot_is_free_after_every_ending(
        self, ending: str, shared: bool, primary: FakeOpenAI, database: str, tmp_path: Path
    ) -> None:
        limits = {"requests_per_minute": 1} if ending == "refused" else {}
        key = make_key(database, parallel=1, **limits)
        settings: dict[str, Any] = {"request_seconds": 0.2} if ending == "late" else {}
        with contextlib.ExitStack() as stack:
            redis = stack.enter_context(redis_server(tmp_path)) if shared else None
            settings["redis"] = redis.url if redis else None
            config = chat_chain(primary.url, more=WAITS)
            server = stack.enter_context(gateway_server(config, database=database, **settings))
            stall = stall_stream(1)
            if ending in ("left", "left stream"):
                primary.fail(stall)
                with held_request(server, stall, key, stream=ending == "left stream"):
                    assert list(server.state.limits.slots) == [key.split("_")[1]]
                    assert redis is None or redis.names(LEASES) != NONE
                assert stall.disconnected.wait(START_S)
            elif ending == "late":
                primary.fail(stall)
                assert chat(server, key).status_code == 504
            elif ending == "error":
                primary.fail(*[Reply(500)] * 2)
                assert chat(server, key).status_code >= 500
            elif ending == "error in stream":
                primary.fail(error_in_stream(2))
                assert "error" in chat(server, key, stream=True).text
            elif ending == "invalid":
                assert chat(server, key, temperature="x").status_code == 400
            else:
                assert [chat(server, key).status_code for _ in range(2)] == [200, 429]
            wait_until_idle(server)
            assert server.state.limits.slots == {}
            assert redis is None or redis.names(LEASES) == NONE

    def test_a_thousand_requests_leave_no_slot(self, redis: RedisServer, database: str) -> None:
        key = make_key(database, parallel=4)
        with replicas(database, redis) as servers:
            seen = embed_many(servers, key, 1000)
            assert set(seen) <= {200, 429}
            assert seen[200] > 0
            for server in servers:
                wait_until_idle(server)
                assert server.state.limits.slots == {}
            assert redis.names(LEASES) == NONE

    def test_who_sends_one_after_the_other_needs_one_slot(self, redis: RedisServer, database: str) -> None:
        key = make_key(database, parallel=1)
        with replicas(database, redis) as servers, servers[0].client() as one, servers[1].client() as other:
            assert {embed(client, key).status_code for client in (one, other) * 50} == {200}

    def test_a_process_that_was_killed_holds_its_slots_no_longer_than_a_lease(
        self, redis: RedisServer, primary: FakeOpenAI, database: str
    ) -> None:
        key = make_key(database, parallel=1)
        stall = stall_stream(1)
        primary.fail(stall)
        config = chat_chain(primary.url, more=WAITS)
        own = f'{config}[server]\ndatabase = "{database}"\nredis = "{redis.url}"\n'
        with (
            gateway_server(config, database=database, redis=redis.url) as server,
            ServerProcess(own) as process,
            contextlib.closing(raw_request(process.url, {"messages": ASK, "stream": True}, **bearer(key))),
        ):
            assert stall.reached.wait(START_S)
            assert chat(server, key).status_code == 429
            process.signal(signal.SIGKILL)
            process.wait()
            name = redis.names(LEASES).split(b"\r\n")[2].decode()
            # The lease is there for at most a minute; the test moves its end instead of waiting for it.
            assert 0 < int(redis.command("TTL", name).strip(b":\r\n")) <= 60
            (request,) = redis.command("ZRANGE", name, "0", "-1").split(b"\r\n")[2:3]
            redis.command("ZADD", name, "1", request.decode())
            assert chat(server, key).status_code == 200


class TestReplicas:
    def test_exactly_the_limit_is_admitted_by_both_together(self, redis: RedisServer, database: str) -> None:
        """litellm #2730, #16011, #27900: each replica counted by itself."""
        key = make_key(database, requests_per_minute=10)
        with replicas(database, redis) as servers:
            assert embed_many(servers, key, 60) == {200: 10, 429: 50}

    def test_a_slot_of_one_is_a_slot_of_both(self, redis: RedisServer, primary: FakeOpenAI, database: str) -> None:
        key = make_key(database, parallel=1)
        stall = stall_stream(1)
        primary.fail(stall)
        with replicas(database, redis, chat_chain(primary.url, more=WAITS)) as (one, other):
            with held_request(one, stall, key):
                assert chat(other, key).status_code == 429
            assert stall.disconnected.wait(START_S)
            wait_until_idle(one)
            assert chat(other, key).status_code == 200

    def test_tokens_of_one_are_tokens_of_both(self, redis: RedisServer, primary: FakeOpenAI, database: str) -> None:
        primary.brain = script("word " * 50)
        with replicas(database, redis, chat_chain(primary.url)) as servers:

            def work() -> list[httpx.Response]:
                key = make_key(database, tokens_per_minute=10)
                return [chat(server, key) for server in servers]

            assert [each.status_code for each in within_one_minute(work)] == [200, 429]

    def test_names_in_redis_begin_with_the_way_of_counting(self, redis: RedisServer, database: str) -> None:
        key = make_key(database, requests_per_minute=5, tokens_per_minute=5)
        with replicas(database, redis) as (server, _), server.client() as client:
            embed(client, key)
            names = redis.names("*")
        assert b"hf-gateway:limits:moving-window/" in names
        assert key.split("_")[1].encode() not in names

    def test_without_redis_each_limits_by_itself_until_it_is_back(self, redis: RedisServer, database: str) -> None:
        key, administrator = make_key(database, requests_per_minute=5), make_key(database)
        gauge = "hf_gateway_server_limits_per_process"
        with replicas(database, redis) as servers:
            assert embed_many(servers, key, 6) == {200: 5, 429: 1}
            redis.stop()
            for server in servers:
                assert embed_many([server], key, 9) == {200: 5, 429: 4}
                assert metric(server, gauge, administrator) == "1.0"
                with server.client() as client:
                    word = client.get("/readyz")
                    ready = client.get("/readyz", headers=bearer(administrator))
                    status = client.get("/admin/status", headers=bearer(administrator)).json()
                assert (word.status_code, word.text) == (200, "ready")
                assert ready.text == "ready\nnote: limits, see /admin/status"
                assert status["ready"]
                assert "Redis" in status["notes"]["limits"]
                assert str(redis.port) not in status["notes"]["limits"]
            redis.start()
            for server in servers:
                wait_until(functools.partial(_has_no_notes, server), "the servers do not see that Redis is back")
                assert metric(server, gauge, administrator) == "0.0"
            with servers[0].client() as client:
                assert client.get("/readyz").text == "ready"
            # It was killed with all that it knew, and counts again for both.
            assert embed_many(servers, key, 20) == {200: 5, 429: 15}

    def test_what_is_under_way_is_a_lease_again_when_redis_is_back(
        self, redis: RedisServer, primary: FakeOpenAI, database: str
    ) -> None:
        key = make_key(database, parallel=1)
        stall = stall_stream(1)
        primary.fail(stall)
        with (
            replicas(database, redis, chat_chain(primary.url, more=WAITS)) as (one, other),
            held_request(one, stall, key),
        ):
            redis.stop()
            assert chat(one, key).status_code == 429
            other_key = make_key(database, parallel=1, requests_per_minute=9)
            assert chat(one, other_key).status_code == 200
            assert one.state.notes
            redis.start()
            wait_until(lambda: not one.state.notes, "the server does not see that Redis is back")
            assert chat(other, key).status_code == 429

    def test_refusals_are_counted(self, database: str) -> None:
        key, administrator = make_key(database, requests_per_minute=1), make_key(database)
        with gateway_server(database=database) as server:
            embed_many([server], key, 3)
            assert metric(server, 'hf_gateway_server_limit_refusals_total{limit="requests"}', administrator) == "2.0"


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://localhost:port"])
def test_a_url_that_is_no_redis_is_refused_before_the_start(url: str) -> None:
    with pytest.raises(ConfigError, match=r"is (not )?the URL of a Redis"), gateway_server(redis=url):
        raise AssertionError("it started")
