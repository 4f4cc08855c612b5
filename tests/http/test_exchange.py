"""The rules of one exchange over HTTP, whichever library carries it out: without any connection, each on its edge."""

from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.errors import GatewayError
from hf_gateway.http import exchange
from hf_gateway.http.decoding import Truncated, Undecodable
from hf_gateway.http.exchange import Exchange, lowercase_names, raise_error, translate
from hf_gateway.keys.credentials import Credential
from hf_gateway.runtime.effects import Open, Send
from hf_gateway.values.http import HttpRequest
from hf_gateway.values.secret import Secret

URL = "http://server:8080/v1/embeddings"
KEY = "the-servers-own-key"
CREDENTIAL = Credential(Secret(KEY), "http://server:8080", "a test")
TO = "http://server:8080/there"


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(exchange, "time", made)
    return made


def sending(
    method: str = "POST",
    url: str = URL,
    *,
    key: bool = False,
    headers: dict[str, str] | None = None,
    kind: type[Send] | type[Open] = Send,
    **options: Any,
) -> Exchange:
    wish = kind(HttpRequest(method, url, None, headers or {}), CREDENTIAL if key else None, **options)
    return Exchange(wish, 10.0, 5.0, "t")


def moved(through: Exchange, status: int = 307, place: str = "/there") -> bool:
    return through.redirected(status, {"location": place})


# Time


def test_the_time_for_all_of_it_runs_from_the_beginning_and_ends_to_the_second(clock: Clock) -> None:
    on_its_way = sending()
    assert on_its_way.remaining_s() == 10.0
    clock.now += 9.5
    assert on_its_way.remaining_s() == 0.5
    clock.now += 0.5
    with pytest.raises(errors.AttemptTimedOut, match="within 10 s") as caught:
        on_its_way.remaining_s()
    assert caught.value.target == "t"


@pytest.mark.parametrize(("kind", "words"), [(Send, "no whole answer from"), (Open, "no answer from")])
def test_what_is_too_late_is_told_by_what_was_waited_for(kind: Any, words: str) -> None:
    assert words in sending(kind=kind).too_late().message


def test_a_stall_names_its_own_time() -> None:
    error = sending().stalled(2.5)
    assert (error.message, error.target) == ("nothing more came from http://server:8080 within 2.5 s", "t")


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_within_the_origin_is_followed_unless_the_body_would_be_lost(status: int, method: str) -> None:
    on_its_way = sending(method)
    if method == "POST" and status < 304:
        with pytest.raises(errors.BadResponse, match="a POST would be lost") as caught:
            moved(on_its_way, status)
        assert (caught.value.target, caught.value.status, on_its_way.url) == ("t", status, URL)
    else:
        assert moved(on_its_way, status)
        assert on_its_way.url == TO


@pytest.mark.parametrize(
    ("status", "headers", "follow"),
    [
        (200, {"location": "/there"}, True),
        (304, {"location": "/there"}, True),
        (307, {}, True),
        (307, {"location": "/there"}, False),
    ],
)
def test_nothing_else_is_a_redirect(status: int, headers: dict[str, str], follow: bool) -> None:
    on_its_way = sending(follow=follow)
    assert on_its_way.redirected(status, headers) is False
    assert on_its_way.url == URL


def test_five_redirects_are_followed_and_no_sixth() -> None:
    on_its_way = sending()
    for _ in range(5):
        assert moved(on_its_way)
    with pytest.raises(errors.BadResponse, match="redirects to"):
        moved(on_its_way)


@pytest.mark.parametrize("place", ["https://server:8080/", "http://server/", "http://other:8080/", "//other"])
def test_another_origin_is_not_called(place: str) -> None:
    on_its_way = sending("GET")
    with pytest.raises(errors.BadResponse, match="redirects to another server") as caught:
        moved(on_its_way, 302, place)
    assert (caught.value.target, caught.value.status, on_its_way.url) == ("t", 302, URL)


def test_a_redirect_to_what_is_no_url_is_the_servers_fault() -> None:
    with pytest.raises(errors.BadResponse, match="an invalid URL") as caught:
        moved(sending(), 307, "http://[")
    assert (caught.value.target, caught.value.status) == ("t", 307)


# What is sent


def test_the_headers_are_those_of_the_request_and_the_key() -> None:
    given = {"accept": "application/json"}
    assert sending(headers=given).headers() == given
    assert sending(headers=given, key=True).headers() == {**given, "authorization": f"Bearer {KEY}"}
    assert sending(url="http://other/", headers=given, key=True).headers() == given


def test_every_request_says_who_asks_and_what_it_takes() -> None:
    always = exchange.ALWAYS_SENT
    assert set(always) == {"user-agent", "accept", "accept-encoding", "connection"}
    assert always["user-agent"].startswith("hf-gateway/")
    assert (always["accept"], always["connection"]) == ("*/*", "keep-alive")


@pytest.mark.parametrize(
    "headers", [{"x-a": "é"}, {"x-a": "a\nb"}, {"x-é": "a"}, {"x\n": "a"}], ids=["value", "line", "name", "its line"]
)
def test_a_header_that_cannot_be_written_is_named_without_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(errors.InvalidRequest, match="has characters that no header can have"):
        sending(headers=headers).headers()


def test_a_url_may_have_65536_characters() -> None:
    room = 2**16 - len(URL) - 1
    assert sending(url=f"{URL}?{'a' * room}").address(len) == 2**16
    with pytest.raises(errors.InvalidRequest, match="longer than 65,536 characters"):
        sending(url=f"{URL}?{'a' * (room + 1)}").address(len)


def test_a_url_that_a_library_cannot_call_is_the_callers_fault_or_of_the_server_that_sent_us_there() -> None:
    def parse(url: str) -> str:
        raise ValueError(f"no port in it, says {KEY}")

    on_its_way = sending(key=True)
    with pytest.raises(errors.InvalidRequest, match=r"cannot be called: no port in it, says \*\*\*") as caught:
        on_its_way.address(parse)
    assert caught.value.target == "t"
    assert caught.value.__context__ is None
    moved(on_its_way)
    with pytest.raises(errors.BadResponse, match="redirects to 'http://server:8080/there', which cannot") as later:
        on_its_way.address(parse)
    assert later.value.target == "t"


def test_a_url_is_shown_up_to_200_characters() -> None:
    for length, shown in ((200, 200), (201, 200)):
        url = f"{URL}/{'a' * (length - len(URL) - 1)}"
        words = str(sending(url=url).uncallable("?"))
        assert repr(url[:shown] + ("…" if length > shown else "")) in words


# What comes


def test_an_answer_may_have_512_mb_unless_the_request_says_otherwise() -> None:
    most = 512 * 1024 * 1024
    sending().check_size(most)
    with pytest.raises(errors.BadResponse, match="more than 512 MB") as caught:
        sending().check_size(most + 1, 200)
    assert (caught.value.target, caught.value.status) == ("t", 200)
    sending(max_bytes=most * 2).check_size(most * 2)
    with pytest.raises(errors.BadResponse, match="more than 1024 MB"):
        sending(max_bytes=most * 2).check_size(most * 2 + 1)


def test_an_encoding_that_nobody_asked_for_is_a_bad_answer() -> None:
    assert sending().decoder(200, {"content-encoding": "gzip"})
    with pytest.raises(errors.BadResponse, match=f"in the encoding '{'x' * 80}', which was not asked for"):
        sending().decoder(200, {"content-encoding": "x" * 81})


@pytest.mark.parametrize(("status", "shown"), [(200, KEY), (299, KEY), (300, "***"), (401, "***")])
def test_a_refusal_shows_the_key_no_more_and_an_answer_is_left_as_it_is(status: int, shown: str) -> None:
    told = sending(key=True).response(status, {"a": "b"}, f"{KEY}!".encode())
    assert (told.status, told.headers, told.body) == (status, {"a": "b"}, f"{shown}!".encode())
    assert sending().response(status, {}, KEY.encode()).body == KEY.encode()


def test_headers_of_one_name_are_joined() -> None:
    assert lowercase_names([("A", "1"), ("b", "2"), ("a", "3"), ("A", "4")]) == {"a": "1, 3, 4", "b": "2"}


# What went wrong


def test_a_lost_connection_names_the_server_and_not_the_key() -> None:
    for error in (sending(key=True).connect_failed(f"no {KEY}"), sending(key=True).connection_broken(f"no {KEY}")):
        assert (error.target, KEY in error.message) == ("t", False)
        assert "http://server:8080" in error.message
        assert "no ***" in error.message
    assert "no reason" in sending().connect_failed("no reason").message


def nothing(*_: Any) -> None:
    """A library that knows no exception."""


def test_an_exception_is_sorted_by_who_knows_it() -> None:
    on_its_way = sending()
    ours = errors.BadResponse("?")
    assert translate(nothing, on_its_way, ours) is ours
    spoilt = translate(nothing, on_its_way, Undecodable("spoilt"))
    assert (type(spoilt), spoilt.target) == (errors.BadResponse, "t")
    assert "cannot be decompressed: spoilt" in spoilt.message
    assert "does not come to an end" in translate(nothing, on_its_way, Truncated()).message
    assert type(translate(nothing, on_its_way, TimeoutError())) is errors.AttemptTimedOut
    assert translate(lambda *_: ours, on_its_way, TimeoutError()) is ours
    with pytest.raises(KeyError):
        translate(nothing, on_its_way, KeyError("a stranger"))


def test_a_failure_is_raised_without_the_librarys_own() -> None:
    failure = GatewayError("?")
    with pytest.raises(GatewayError) as caught:
        raise_error(failure)
    assert caught.value is failure
    assert caught.value.__context__ is None
