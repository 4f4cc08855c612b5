"""One file on its way from the Hub, against answers that a test lists: no socket, no pause, and a clock that is moved."""

import hashlib
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.errors import GatewayError
from hf_gateway.hub import ModelFile, transfer
from hf_gateway.hub.transfer import DownloadSource, Patience, Stopped, Transfer, check_size
from hf_gateway.keys.credentials import Credential, origin_of
from hf_gateway.runtime.effects import Open, Opened
from hf_gateway.values.secret import Secret

HUB = "https://hub.example"
STORAGE = "https://127.0.0.1:9"
"""Elsewhere; by its number, so that no name is looked up."""
COMMIT = "c" * 40
CONTENT = b"0123456789"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
GIT_ID = hashlib.sha1(b"blob 10\0" + CONTENT).hexdigest()
FILE = ModelFile("model.safetensors", len(CONTENT), SHA256)
PATIENCE = Patience(silence_s=2.0, tries=3, rest_s=60.0)
LEAST = int(transfer.MIN_BYTES_PER_S * PATIENCE.silence_s)
"""Bytes that a connection has to bring within the silence."""


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Body:
    """A body in pieces: bytes, seconds that pass, or a failure."""

    def __init__(self, clock: Clock, pieces: tuple[Any, ...]) -> None:
        self.allowed: list[float] = []
        self.closed = False
        self._clock, self._pieces = clock, deque(pieces)

    def read(self, timeout: float) -> bytes | None:
        self.allowed.append(timeout)
        while self._pieces:
            piece = self._pieces.popleft()
            if isinstance(piece, GatewayError):
                raise piece
            if isinstance(piece, bytes):
                return piece
            self._clock.now += piece
        return None

    def close(self) -> None:
        self.closed = True


class Hub:
    """Answers as listed, the last one ever after; stands in for `HttpTransport`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.wishes: list[Open] = []
        self.times: list[tuple[float, float]] = []
        self.bodies: list[Body] = []
        self.answers: deque[Any] = deque()
        self.closed = False

    def open(self, wish: Open, *, timeout: float, connect_timeout: float, target: str) -> Opened:
        assert target == "the Hub"
        self.wishes.append(wish)
        self.times.append((timeout, connect_timeout))
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, GatewayError):
            raise answer
        status, headers, *pieces = answer
        self.bodies.append(Body(self.clock, tuple(pieces)))
        return Opened(status, headers, self.bodies[-1])  # type: ignore[arg-type]

    def close(self) -> None:
        self.closed = True

    @property
    def urls(self) -> list[str]:
        return [wish.request.url for wish in self.wishes]

    @property
    def ranges(self) -> list[str | None]:
        return [wish.request.headers.get("range") for wish in self.wishes]


class Fetching:
    """A transfer of one file. pauses: what was waited, in seconds; here: the bytes told of."""

    def __init__(self, hub: Hub, part: Path, endpoint: str) -> None:
        self.hub, self.part = hub, part
        self.pauses: list[float] = []
        self.here: list[int] = []
        self.stopped = False
        credential = Credential(Secret("hf_abcDEF0123456789"), origin_of(endpoint), "a test")
        source = DownloadSource(endpoint, "org/model", COMMIT, credential)
        self.transfer = Transfer(source, self._pause, lambda _, done: self.here.append(done), PATIENCE)

    def _pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return self.stopped

    def __call__(self, *answers: Any, file: ModelFile = FILE, have: bytes | None = None) -> str:
        self.hub.answers = deque(answers)
        if have is not None:
            self.part.parent.mkdir(parents=True)
            self.part.write_bytes(have)
        return self.transfer.fetch(file, self.part)

    def fails(self, kind: type[GatewayError], *answers: Any, **named: Any) -> GatewayError:
        with pytest.raises(kind) as caught:
            self(*answers, **named)
        return caught.value


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(transfer, "time", made)
    return made


@pytest.fixture
def hub(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(clock)
    monkeypatch.setattr(transfer, "HttpTransport", lambda: made)
    return made


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Fetching:
    return Fetching(hub, tmp_path / "deep" / "down" / "part", HUB)


@pytest.fixture
def from_plain_hub(hub: Hub, tmp_path: Path) -> Fetching:
    """From a mirror in the house, without encryption."""
    return Fetching(hub, tmp_path / "part", "http://127.0.0.1:8090")


def whole(content: bytes = CONTENT) -> tuple[Any, ...]:
    return 200, {}, content


def sent_to(place: str, status: int = 302) -> tuple[Any, ...]:
    return status, {"location": place}


# What comes


@pytest.mark.parametrize("digest", [SHA256, GIT_ID, None, "unheard of"])
def test_a_file_is_checked_against_what_the_hub_said_of_it(fetch: Fetching, digest: str | None) -> None:
    file = ModelFile("a b/model.safetensors", len(CONTENT), digest)
    found = fetch(whole(), file=file)
    assert found == (GIT_ID if digest == GIT_ID else SHA256)
    assert fetch.part.read_bytes() == CONTENT
    assert fetch.hub.urls == [f"{HUB}/org/model/resolve/{COMMIT}/a%20b/model.safetensors"]
    assert (fetch.here, fetch.pauses) == ([10], [])


def test_what_is_asked_for_is_not_compressed_and_has_little_time_at_each_step(fetch: Fetching) -> None:
    fetch((200, {}, CONTENT[:4], CONTENT[4:]))
    wish = fetch.hub.wishes[0]
    assert (wish.request.method, wish.follow, wish.max_bytes) == ("GET", False, transfer.MAX_FILE_BYTES)
    assert wish.request.headers == {"accept-encoding": "identity"}
    assert wish.credential is not None
    assert fetch.hub.times == [(2.0, 5.0)]
    assert fetch.hub.bodies[0].allowed == [2.0] * 3
    assert fetch.hub.bodies[0].closed
    assert fetch.here == [4, 10]
    fetch.transfer.close()
    assert fetch.hub.closed


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (FILE, b"0123456780"),
        (ModelFile(FILE.path, 10, GIT_ID), b"0123456780"),
        (ModelFile(FILE.path, None, SHA256), b"0123456780"),
        (ModelFile(FILE.path, 11, None), CONTENT),
        (ModelFile(FILE.path, 11, SHA256), CONTENT),
        (ModelFile(FILE.path, 10, None), CONTENT + b"!"),
    ],
)
def test_what_is_not_the_file_is_deleted_and_an_error(fetch: Fetching, file: ModelFile, content: bytes) -> None:
    error = fetch.fails(errors.BadResponse, whole(content), file=file)
    said = "not what the Hub lists" if file.size in (None, len(content)) else f"{len(content)} bytes long, not"
    assert said in error.message
    assert not fetch.part.exists()


def test_an_empty_file_is_a_file(fetch: Fetching) -> None:
    assert fetch((200, {}), file=ModelFile("empty", 0)) == hashlib.sha256(b"").hexdigest()
    assert fetch.part.read_bytes() == b""


def test_more_than_was_said_is_not_read_to_its_end(fetch: Fetching) -> None:
    fetch.fails(errors.BadResponse, (200, {}, CONTENT, b"!", b"never", b"read"))
    assert len(fetch.hub.bodies[0].allowed) == 2


def test_a_file_of_unknown_size_ends_where_it_ends(fetch: Fetching) -> None:
    assert fetch(whole(), file=ModelFile(FILE.path)) == SHA256


# What is there already


@pytest.mark.parametrize("have", [1, 4])
def test_what_is_there_is_not_fetched_again(fetch: Fetching, have: int) -> None:
    assert fetch((206, {}, CONTENT[have:]), have=CONTENT[:have]) == SHA256
    assert (fetch.hub.ranges, fetch.here) == ([f"bytes={have}-"], [10])


def test_a_server_that_gives_it_from_the_beginning_is_believed(fetch: Fetching) -> None:
    assert fetch(whole(), have=CONTENT[:4]) == SHA256
    assert fetch.here == [10]


def test_a_range_that_nobody_asked_for_is_the_beginning(fetch: Fetching) -> None:
    assert fetch((206, {}, CONTENT), have=b"") == SHA256
    assert fetch.hub.ranges == [None]


def test_a_part_that_is_complete_is_checked_without_a_question(fetch: Fetching) -> None:
    assert fetch(whole(), have=CONTENT) == SHA256
    assert fetch.hub.wishes == []


@pytest.mark.parametrize(
    ("have", "answers", "ranges"),
    [
        (CONTENT + b"!", [whole()], [None]),
        (CONTENT[:4], [(416, {}), whole()], ["bytes=4-", None]),
        (None, [(416, {}), whole()], [None, None]),
    ],
    ids=["longer than the file", "refused as a range", "refused although there is none"],
)
def test_a_part_of_something_else_is_dropped_and_the_file_asked_for_anew_at_once(
    fetch: Fetching, have: bytes | None, answers: list[Any], ranges: list[str | None]
) -> None:
    assert fetch(*answers, have=have) == SHA256
    assert (fetch.hub.ranges, fetch.pauses) == (ranges, [0.0])


# How long is waited, and how often


BROKEN = errors.ConnectFailed("reset")


def test_pauses_between_tries_are_drawn_from_nothing_to_twice_as_much_each_time(
    fetch: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []
    monkeypatch.setattr(transfer.random, "uniform", lambda *ends: drawn.append(ends) or 0.25)
    fetch.transfer = Transfer(
        fetch.transfer._source, fetch._pause, lambda *_: None, Patience(silence_s=2.0, tries=6, rest_s=60.0)
    )
    error = fetch.fails(errors.ConnectFailed, BROKEN)
    assert drawn == [(0, 2), (0, 4), (0, 8), (0, 8), (0, 8)]
    assert fetch.pauses == [0.25] * 5
    assert "the partial file is kept" in error.message


def test_a_caller_who_stops_in_a_pause_has_no_more_tries(fetch: Fetching) -> None:
    fetch.stopped = True
    with pytest.raises(Stopped):
        fetch(BROKEN)
    assert len(fetch.hub.wishes) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (BROKEN, errors.ConnectFailed, "the connection broke"),
        (errors.AttemptTimedOut("silent"), errors.AttemptTimedOut, "of org/model for 2 s, 3 times"),
        ((200, {}, b"01", errors.AttemptTimedOut("silent")), errors.AttemptTimedOut, "for 2 s, 3 times"),
        ((503, {}), errors.ServerError, "too busy"),
        ((503, {"retry-after": "7"}), errors.ServerError, "too busy"),
    ],
)
def test_after_some_tries_that_brought_nothing_it_is_given_up(
    fetch: Fetching, answer: Any, kind: type[GatewayError], said: str
) -> None:
    error = fetch.fails(kind, answer)
    assert said in error.message
    assert (len(fetch.hub.wishes), len(fetch.pauses)) == (3, 2)
    assert error.status == (503 if kind is errors.ServerError else None)


def test_tries_that_bring_enough_do_not_count_as_failures(fetch: Fetching) -> None:
    size = LEAST * 6
    content = bytes(size)
    cuts = [(206, {}, content[at : at + LEAST], BROKEN) for at in range(0, size, LEAST)]
    first, *rest = cuts
    file = ModelFile(FILE.path, size, hashlib.sha256(content).hexdigest())
    assert fetch((200, *first[1:]), *rest, whole(), file=file) == file.digest
    assert fetch.hub.ranges == [None, *(f"bytes={at}-" for at in range(LEAST, size, LEAST))]


def test_a_try_that_brought_enough_begins_the_row_anew(fetch: Fetching) -> None:
    content = bytes(LEAST + 1)
    file = ModelFile(FILE.path, len(content), hashlib.sha256(content).hexdigest())
    last = (206, {}, content[LEAST:])
    assert fetch(BROKEN, (200, {}, content[:LEAST], BROKEN), BROKEN, last, file=file) == file.digest
    assert len(fetch.pauses) == 3


def test_tries_that_bring_a_byte_less_do(fetch: Fetching) -> None:
    few = bytes(LEAST - 1)
    fetch.fails(errors.ConnectFailed, (206, {}, few, BROKEN), file=ModelFile(FILE.path, 10**9, None))
    assert len(fetch.hub.wishes) == 3


@pytest.mark.parametrize(("bytes_in_time", "goes_on"), [(LEAST, True), (LEAST - 1, False)])
def test_a_connection_has_to_bring_a_kilobyte_a_second(fetch: Fetching, bytes_in_time: int, goes_on: bool) -> None:
    slow = (2.0, bytes(bytes_in_time))
    answer = (206, {}, *slow * 4)
    size = bytes_in_time * 4
    if goes_on:
        fetch(answer, file=ModelFile(FILE.path, size, None))
        assert len(fetch.hub.wishes) == 1
    else:
        fetch.fails(errors.AttemptTimedOut, answer, file=ModelFile(FILE.path, 10**9, None))


def test_what_came_before_does_not_count_for_it(fetch: Fetching) -> None:
    fetch.fails(
        errors.AttemptTimedOut,
        (206, {}, 1.0, b"1", 1.0, b"2", 1.0, b"3"),
        have=bytes(LEAST * 9),
        file=ModelFile(FILE.path, 10**9, None),
    )
    assert fetch.hub.bodies[0].allowed == [2.0, 2.0]
    assert fetch.hub.bodies[0].closed


def test_a_burst_does_not_last_for_ever(fetch: Fetching) -> None:
    answer = (206, {}, 2.0, bytes(LEAST * 9), 1.9, b"1", 0.1, b"2", 0.1, b"3")
    fetch.fails(errors.ConnectFailed, answer, BROKEN, file=ModelFile(FILE.path, 10**9, None))
    assert fetch.hub.bodies[0].allowed == [2.0, 2.0, 2.0]


# A Hub that is busy or refuses


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_hub_is_asked_again_after_the_time_that_it_names(fetch: Fetching, status: int) -> None:
    assert fetch((status, {"retry-after": "7"}), whole()) == SHA256
    assert fetch.pauses == [7.0]


def test_a_busy_hub_that_names_none_is_asked_again_after_half_a_second_to_two(
    fetch: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []
    monkeypatch.setattr(transfer.random, "uniform", lambda *ends: drawn.append(ends) or 1.5)
    assert fetch((503, {}), whole()) == SHA256
    assert (drawn, fetch.pauses) == ([(0.5, 2.0)], [1.5])


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"ratelimit": '"resolvers";r=0;t=60'}, 60.0),
        ({"ratelimit": '"resolvers";r=0;t=50', "retry-after": "5"}, 50.0),
        ({"ratelimit": '"resolvers";r=1;t=50', "retry-after": "5"}, 5.0),
    ],
)
def test_an_empty_window_is_waited_out_and_one_with_something_left_is_not(
    fetch: Fetching, headers: dict[str, str], waits: float
) -> None:
    assert fetch((429, headers), whole()) == SHA256
    assert fetch.pauses == [waits]


def test_a_longer_rest_than_a_download_bears_with_is_told(fetch: Fetching) -> None:
    error = fetch.fails(errors.RateLimited, (429, {"ratelimit": '"resolvers";r=0;t=61'}))
    assert (error.retry_after, error.status, fetch.pauses) == (61.0, 429, [])
    assert "for 61 s" in error.message


def test_a_refusal_of_the_hub_is_the_hubs(fetch: Fetching) -> None:
    error = fetch.fails(errors.AuthenticationFailed, (401, {}))
    assert error.status == 401
    assert len(fetch.hub.wishes) == 1


def test_without_a_token_a_refusal_says_that_one_may_be_needed(hub: Hub, tmp_path: Path) -> None:
    fetch = Fetching(hub, tmp_path / "part", HUB)
    fetch.transfer = Transfer(DownloadSource(HUB, "org/model", COMMIT, None), fetch._pause, lambda *_: None, PATIENCE)
    assert "needs a token" in fetch.fails(errors.ModelNotFound, (401, {})).message


def test_a_refusal_of_the_storage_is_not_one_of_the_token(fetch: Fetching) -> None:
    error = fetch.fails(errors.ServerError, sent_to(f"{STORAGE}/x"), (403, {}))
    assert "the Hub's storage refused a file (HTTP 403)" in error.message
    assert error.status == 403


# Where it is sent


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_file_may_lie_elsewhere(fetch: Fetching, status: int) -> None:
    assert fetch(sent_to(f"{STORAGE}/x?y=z", status), whole()) == SHA256
    assert fetch.hub.urls[1] == f"{STORAGE}/x?y=z"
    assert all(body.closed for body in fetch.hub.bodies)


def test_what_is_there_is_asked_for_where_it_lies_too(fetch: Fetching) -> None:
    assert fetch(sent_to("/x"), (206, {}, CONTENT[4:]), have=CONTENT[:4]) == SHA256
    assert (fetch.hub.urls[1], fetch.hub.ranges) == (f"{HUB}/x", ["bytes=4-"] * 2)


def test_a_redirect_to_nowhere_and_another_status_with_a_place_are_none(fetch: Fetching) -> None:
    fetch.fails(GatewayError, (302, {}))
    assert fetch((200, {"location": "/x"}, CONTENT)) == SHA256
    assert len(set(fetch.hub.urls)) == 1


def test_a_file_that_is_sent_on_and_on_is_given_up(fetch: Fetching) -> None:
    error = fetch.fails(errors.BadResponse, sent_to("/again"))
    assert "too many redirects" in error.message
    assert len(fetch.hub.wishes) == 5
    assert fetch.pauses == []


def test_a_file_of_an_encrypted_hub_is_not_fetched_without_encryption(fetch: Fetching) -> None:
    error = fetch.fails(errors.BadResponse, sent_to("http://127.0.0.1:9/x"), whole())
    assert "without encryption" in error.message
    assert len(fetch.hub.wishes) == 1


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/x", f"{STORAGE}/x", "http://127.0.0.1:8090/x"])
def test_a_mirror_without_encryption_may_send_a_file_anywhere(from_plain_hub: Fetching, place: str) -> None:
    assert from_plain_hub(sent_to(place), whole()) == SHA256


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("http://[", "an invalid URL"),
        ("https://127.0.0.1:99999/x", "an invalid URL"),
        ("ftp://127.0.0.1/x", "not called"),
        ("file:///etc/passwd", "not called"),
        ("https://me@127.0.0.1/x", "not called"),
    ],
)
def test_a_place_that_is_none_is_not_asked(fetch: Fetching, place: str, said: str) -> None:
    assert said in fetch.fails(errors.BadResponse, sent_to(place), whole()).message
    assert len(fetch.hub.wishes) == 1


def test_a_place_that_may_not_be_called_is_not(fetch: Fetching) -> None:
    error = fetch.fails(GatewayError, sent_to("https://169.254.169.254/x"), whole())
    assert "never called" in error.message
    assert "hub.example:443 sends a file elsewhere" in error.message


def test_what_cannot_be_sent_is_a_bad_answer_of_who_named_it(fetch: Fetching) -> None:
    error = fetch.fails(errors.BadResponse, sent_to("/x"), errors.InvalidRequest("too long"))
    assert "an invalid address: too long" in error.message
    assert fetch.pauses == []


# What cannot be had


def test_only_a_file_that_http_gives_is_tried() -> None:
    check_size(ModelFile("big.gguf", transfer.MAX_FILE_BYTES))
    check_size(ModelFile("big.gguf"))
    with pytest.raises(errors.BadResponse, match="larger than 50 GB"):
        check_size(ModelFile("big.gguf", transfer.MAX_FILE_BYTES + 1))


@pytest.mark.parametrize("digest", ["A" * 40, "g" * 64, "a" * 41, "", "sha256:" + "a" * 57])
def test_what_is_no_digest_is_compared_with_nothing(fetch: Fetching, digest: str) -> None:
    assert fetch(whole(), file=ModelFile(FILE.path, 10, digest)) == SHA256


def test_a_person_who_watches_has_the_usual_patience(hub: Hub, tmp_path: Path) -> None:
    fetch = Fetching(hub, tmp_path / "part", HUB)
    fetch.transfer = Transfer(fetch.transfer._source, fetch._pause, lambda *_: None)
    fetch.fails(errors.ConnectFailed, BROKEN)
    assert (len(hub.wishes), hub.times[0][0]) == (transfer.TRIES, transfer.READ_TIMEOUT_S)
    assert (transfer.TRIES, transfer.READ_TIMEOUT_S, transfer.MAX_WAIT_S) == (5, 30, 300)
