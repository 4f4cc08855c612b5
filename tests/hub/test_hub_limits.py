"""The Hub's rate limits, and a Hub that is busy: how long is waited, and when nothing is sent at all. No test waits itself."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_gateway import errors
from hf_gateway.http.transport import HttpTransport
from hf_gateway.hub import HubConnector, client
from hf_gateway.runtime.effects import Send
from hf_gateway.testing import ManualClock
from hf_gateway.values.http import HttpResponse
from hf_gateway.wire.hub_models import RateLimit, rate_limit
from tests.servers.hostile import PLACES
from tests.servers.hub import Listed, ReadHub
from tests.servers.loopback import Loopback, Recorded, Reply, Silent

MODEL = "org/model"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def hub() -> Iterator[ReadHub]:
    with ReadHub({MODEL: Listed(declared={"model.safetensors": 8})}) as server:
        yield server


@pytest.fixture
def connector(hub: ReadHub, clock: ManualClock, tmp_path: Path) -> Iterator[HubConnector]:
    with HubConnector(endpoint=hub.url, cache=tmp_path / "cache", clock=clock, environment={}) as made:
        yield made


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('"api";r=489;t=189', RateLimit("api", 489, 189)),
        ('"resolvers";r=0;t=55', RateLimit("resolvers", 0, 55)),
        ('"api" ; r = 3 ; t = 1', RateLimit("api", 3, 1)),
        ("api;r=1;t=2", RateLimit("api", 1, 2)),
        ("", None),
        ("nonsense", None),
        ('"api";r=x;t=2', None),
    ],
)
def test_the_header_is_read_as_the_hub_writes_it(header: str, expected: RateLimit | None) -> None:
    assert rate_limit({"ratelimit": header}) == expected


def test_it_reads_what_huggingface_hub_reads() -> None:
    from huggingface_hub.utils import parse_ratelimit_headers

    for header in ('"api";r=489;t=189', '"pages";r=0;t=55'):
        theirs, ours = parse_ratelimit_headers({"ratelimit": header}), rate_limit({"ratelimit": header})
        assert theirs is not None
        assert ours == RateLimit(theirs.resource_type, theirs.remaining, theirs.reset_in_seconds)


def test_a_short_wait_is_waited_out_once(hub: ReadHub, connector: HubConnector, clock: ManualClock) -> None:
    hub.fail(Reply(429, {"error": "slow down"}, {"ratelimit": '"api";r=0;t=7'}))
    assert connector.get_model_metadata(MODEL) is not None
    assert clock.waited == [7]


def test_a_second_refusal_is_told(hub: ReadHub, connector: HubConnector, clock: ManualClock) -> None:
    hub.always(Reply(429, {"error": "slow down"}, {"ratelimit": '"api";r=0;t=7'}))
    with pytest.raises(errors.RateLimited) as caught:
        connector.get_model_metadata(MODEL)
    assert caught.value.retry_after == 7
    assert hub.count() == 2
    assert clock.waited == [7]


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "3600"},
        {"retry-after": "Fri, 20 Nov 2099 12:00:00 GMT"},
        {"ratelimit": '"api";r=0;t=3600'},
        {"retry-after": "120", "ratelimit": '"api";r=0;t=250'},
    ],
)
def test_a_long_wait_is_never_slept_but_told_and_nothing_is_sent_meanwhile(
    hub: ReadHub, connector: HubConnector, clock: ManualClock, headers: dict[str, str]
) -> None:
    hub.fail(Reply(429, {"error": "slow down"}, headers))
    for _ in range(3):
        with pytest.raises(errors.RateLimited):
            connector.get_model_metadata(MODEL)
    assert (hub.count(), clock.waited) == (1, [])
    clock.advance(301)  # whatever it said: a window of the Hub's is no longer
    assert connector.get_model_metadata(MODEL) is not None


def test_a_date_that_is_gone_or_nonsense_stops_nobody(hub: ReadHub, connector: HubConnector) -> None:
    for value in ("Fri, 20 Nov 2015 12:00:00 GMT", "soon", "-5"):
        hub.fail(Reply(429, {"error": "slow down"}, {"retry-after": value}))
        assert connector.get_model_metadata(MODEL, use_cache=False) is not None


def test_an_empty_window_stops_the_next_request_before_it_is_refused(
    hub: ReadHub, connector: HubConnector, clock: ManualClock
) -> None:
    hub.left["api"], hub.reset = 2, 120
    assert connector.get_model_metadata(MODEL) is not None
    with pytest.raises(errors.RateLimited, match="resets in 120 s; a token has a higher one"):
        connector.get_model_metadata("a/b")
    assert hub.count() == 2
    clock.advance(121)
    hub.left["api"] = 500
    assert connector.get_model_metadata("a/b") is None


def test_files_and_questions_have_limits_of_their_own(hub: ReadHub, connector: HubConnector) -> None:
    hub.fail(Reply(200, {"id": MODEL, "siblings": []}, {"ratelimit": '"resolvers";r=0;t=100'}))
    assert connector.get_model_metadata(MODEL) is not None  # its second question goes out all the same
    assert hub.count() == 2


def test_what_is_cached_is_served_while_the_limit_is_used_up(
    hub: ReadHub, connector: HubConnector, clock: ManualClock
) -> None:
    connector.search_models()
    hub.left["api"] = 0
    found = connector.get_model_metadata(MODEL)
    assert found is not None
    assert "HTTP 429" in str(found.stale)


@pytest.mark.parametrize(("status", "tries"), [(500, 2), (502, 2), (503, 2), (400, 1), (403, 1), (401, 1)])
def test_a_busy_hub_is_asked_once_more_and_a_refusal_is_not(
    hub: ReadHub, connector: HubConnector, clock: ManualClock, status: int, tries: int
) -> None:
    hub.always(Reply(status, {"error": "no"}))
    expected = {400: errors.InvalidRequest, 403: errors.PermissionDenied}.get(status, errors.Unavailable)
    with pytest.raises(expected) if status != 401 else contextlib.nullcontext():
        assert connector.get_model_metadata(MODEL) is None  # 401 without a token: nobody may know of it
    assert hub.count() == tries
    assert sum(clock.waited) <= 10


def test_a_silent_hub_is_left_after_a_bounded_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.2)
    with (
        Silent() as silent,
        HubConnector(endpoint=silent.url, cache=tmp_path, environment={}) as connector,
        pytest.raises(errors.AttemptTimedOut, match=r"within 0\.2 s"),
    ):
        connector.get_model_metadata(MODEL)
    assert 0 < client.CONNECT_TIMEOUT_S <= 5


@pytest.mark.parametrize("place", ["headers", "103 Early Hints", "chunk extension", "empty blocks of gzip"])
@pytest.mark.parametrize("form", ["blocking", "async"])
def test_a_hub_that_trickles_its_answer_is_left_after_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, form: str
) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.3)
    began = time.monotonic()
    with Trickling() as server, HubConnector(endpoint=server.url, cache=tmp_path, environment={}) as connector:
        server.always(PLACES[place])

        def ask() -> object:
            return (
                connector.get_model_metadata(MODEL)
                if form == "blocking"
                else asyncio.run(connector.aget_model_metadata(MODEL))
            )

        with pytest.raises(errors.AttemptTimedOut):
            ask()
    assert time.monotonic() - began < 8


class Trickling(Loopback):
    """Answers with a fault alone."""

    def handle(self, _: Recorded) -> Reply:
        raise NotImplementedError


class Tardy(HttpTransport):
    """Each answer comes a second before its time is up, or late."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock

    def send(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        self.clock.advance(min(timeout, client.TIMEOUT_S - 1))
        if timeout <= client.TIMEOUT_S - 1:
            raise errors.AttemptTimedOut("too late", target=target)
        return super().send(send, timeout=timeout, connect_timeout=connect_timeout, target=target)


@pytest.fixture
def tardy(clock: ManualClock, tmp_path: Path) -> Iterator[tuple[HubConnector, ReadHub]]:
    """A Hub whose every answer comes just in time, and whose list of files has two hundred pages."""
    (tmp_path / "model").mkdir()
    for number in range(200):
        (tmp_path / "model" / f"{number}.json").touch()
    with (
        ReadHub({MODEL: Listed(tmp_path / "model")}, page=1) as hub,
        HubConnector(
            endpoint=hub.url, cache=tmp_path / "cache", clock=clock, environment={}, transport=Tardy(clock)
        ) as made,
    ):
        yield made, hub


def test_a_list_whose_every_page_comes_just_in_time_ends_nevertheless(
    tardy: tuple[HubConnector, ReadHub], clock: ManualClock, tmp_path: Path
) -> None:
    began = clock.now()
    with pytest.raises(errors.AttemptTimedOut):
        tardy[0].download_model(MODEL, cache_dir=tmp_path / "files")
    assert clock.now() - began <= client.CALL_TIMEOUT_S


def test_a_search_out_of_time_is_answered_from_the_cache(
    tardy: tuple[HubConnector, ReadHub], clock: ManualClock
) -> None:
    connector, hub = tardy
    hub.models = {f"org/m{number}": Listed() for number in range(100)}
    began = clock.now()
    found = connector.search_models(limit=100)
    assert clock.now() - began <= client.CALL_TIMEOUT_S
    assert found.source == "cache"
    assert found.reason is not None
