"""The failure table, row by row, for every task in every form of a call, counting the requests that reach each server."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import pytest

from hf_gateway import errors
from tests.servers import unit_vectors
from tests.servers.images import image_list, png
from tests.servers.labels import label_list
from tests.servers.loopback import Fault, Reply, cut, dead_url, disconnect, drip, garbage, hang, html, redirect
from tests.servers.rerank import entries
from tests.servers.router import loading, rate_limited
from tests.support.task_callers import (
    FORMS,
    TASKS_AND_FORMS,
    Make,
    Server,
    Task,
    counts,
    maker,
    server_for,
    target_at,
)

TOO_LONG = "This model's maximum context length is 256 tokens. However, you requested 812 tokens in the input."
FILTERED = "The request was rejected by our content policy (violence)"
ALL: tuple[Task, ...] = ("embedding", "chat", "image", "rerank", "classification", "sparse")
BOTH: tuple[Task, ...] = ("embedding", "chat")
IMAGE: tuple[Task, ...] = ("image",)
RERANK: tuple[Task, ...] = ("rerank",)
CLASSIFICATION: tuple[Task, ...] = ("classification",)
EMBEDDING: tuple[Task, ...] = ("embedding",)
SPARSE: tuple[Task, ...] = ("sparse",)
CHAT: tuple[Task, ...] = ("chat",)
HASTE_S = 1.0
"""Seconds after which a silent target is left; the next one answers within them also on a machine that has much else to do."""


@dataclass(frozen=True)
class Row:
    """What one failure of the first of two targets leads to."""

    name: str
    answer: Fault | Callable[[], Fault]
    """What the first target does with every request; a function makes what serves one test only."""
    requests: tuple[int, int]
    """How many reach the first target, and the second; 0 at the second: the call fails at once."""
    alone: str | None = None
    """The error where there is no second target, or none that is asked."""
    tasks: tuple[Task, ...] = ALL
    words: str = ""
    """What stands in that error."""
    texts: Sequence[str] = ("one",)
    settings: Mapping[str, Any] = field(default_factory=dict)
    settings_alone: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fault(self) -> Fault:
        """Return the answer, made for this test where it has to be."""
        return self.answer() if isinstance(self.answer, FunctionType) else self.answer  # type: ignore[return-value]


def says(message: str, status: int) -> Reply:
    return Reply(status, {"error": {"message": message, "type": "x", "code": status}})


def vectors(rows: list[list[Any]]) -> Reply:
    return Reply(
        200, {"object": "list", "data": [{"index": i, "embedding": row} for i, row in enumerate(rows)], "model": "m"}
    )


def bad_vectors(name: str, answer: Fault) -> Row:
    return Row(f"BadResponse: {name}", answer, (1, 1), "BadResponse", EMBEDDING, texts=("one", "two"))


def bad_ranking(name: str, answer: Fault) -> Row:
    return Row(f"BadResponse: {name}", answer, (1, 1), "BadResponse", RERANK)


def results(*scores: Any) -> Reply:
    return Reply(200, {"results": entries(scores)})


def bad_labels(name: str, answer: Fault) -> Row:
    return Row(f"BadResponse: {name}", answer, (1, 1), "BadResponse", CLASSIFICATION)


def labels(*lists: Any) -> Reply:
    return Reply(200, {"data": list(lists)})


def bad_image(name: str, answer: Fault) -> Row:
    return Row(f"BadResponse: {name}", answer, (1, 1), "BadResponse", IMAGE)


def bad_chat(name: str, answer: Fault) -> Row:
    return Row(f"BadResponse: {name}", answer, (1, 1), "BadResponse", CHAT, settings_alone={"streaming": True})


# Fails at once, everywhere the same.
REFUSALS = [
    *(
        Row(f"InvalidRequest: {status}", says(message, status), (1, 0), "InvalidRequest", (task,), message)
        for status in (400, 422)
        for task, message in (
            ("embedding", "input must be a string or an array of strings"),
            ("chat", "messages: content must be a string"),
            ("image", "prompt must be a string"),
            ("rerank", "documents must be an array of strings"),
            ("classification", "input must be an array of strings"),
            ("sparse", "inputs must be a string or an array of strings"),
        )
    ),
    Row("ContentFiltered", says(FILTERED, 400), (1, 0), "ContentFiltered", words="violence"),
]
# Never the same request again; to a target whose context is larger or not known.
OVERFLOWS = [
    Row("ContextOverflow: 400", says(TOO_LONG, 400), (1, 1), "ContextOverflow"),
    Row("ContextOverflow: 413, which cannot be cut", Reply(413, "length limit exceeded"), (1, 1), "ContextOverflow"),
]
# No retry, next target.
OF_ONE_TARGET = [
    Row("AuthenticationFailed: 401", Reply(401), (1, 1), "AuthenticationFailed"),
    Row(
        "AuthenticationFailed: 400 about the key",
        says("API key not valid. Please pass a valid API key.", 400),
        (1, 1),
        "AuthenticationFailed",
    ),
    Row("PermissionDenied: 403", Reply(403, {"error": "insufficient permissions"}), (1, 1), "PermissionDenied"),
    Row(
        "GatedModel: 403",
        Reply(403, {"error": "Access to model x is restricted, it is a gated model"}),
        (1, 1),
        "GatedModel",
    ),
    Row("ModelNotFound: 404", Reply(404, {"error": "model 'x' not found"}), (1, 1), "ModelNotFound"),
    Row(
        "PaymentRequired: 402",
        Reply(402, {"error": "You have exceeded your monthly included credits"}),
        (1, 1),
        "PaymentRequired",
    ),
    Row(
        "ModelNotFound: 400 model_not_supported",
        Reply(400, {"error": {"message": "The model 'm' is not available here", "code": "model_not_supported"}}),
        (1, 1),
        "ModelNotFound",
        CHAT,
    ),
]
# The next target at once, and the server is well.
UNSUPPORTED = [
    Row(f"Unsupported: {name}", answer, (1, 1), None, tasks)
    for name, answer, tasks in [
        (
            "501",
            says("This server does not support embeddings. Start it with `--embeddings`", 501),
            (*EMBEDDING, *SPARSE),
        ),
        (
            "400 pooling",
            says("Pooling type 'none' is not OAI compatible. Please use a different pooling type", 400),
            EMBEDDING,
        ),
        ("500 embeddings", says("this model does not support embeddings", 500), (*EMBEDDING, *SPARSE)),
        ("500 tools", says("tools param requires --jinja flag", 500), CHAT),
        ("500 images", says("image input is not supported", 500), CHAT),
        ("501 images", says("This server does not support images", 501), IMAGE),
        ("501 reranking", says("This server does not support reranking. Start it with `--reranking`", 501), RERANK),
        ("400 labels", says("ModelNotDeployedError: model=`m` does not support `classify`.", 400), CLASSIFICATION),
        ("400 reranking", says("ModelNotDeployedError: model=`m` does not support `rerank`.", 400), RERANK),
        (
            "422 template",
            Reply(422, {"error": "Template error: template not found", "error_type": "template_error"}),
            CHAT,
        ),
    ]
]
# Once again, with jitter, then the next.
RETRIED = [
    *(
        Row(f"{kind}: {status}", Reply(status, {"error": "no"}), (2, 1), kind)
        for kind, statuses in (("Overloaded", (503, 529)), ("ServerError", (500, 502, 424)))
        for status in statuses
    ),
    Row("ConnectFailed: closed", disconnect(), (2, 1)),
    Row("ConnectFailed: reset", disconnect(reset=True), (2, 1)),
    Row("ConnectFailed: cut short", cut(b'{"data":[{"index":0,"embedding":[0.1,'), (2, 1), None, EMBEDDING),
]
# Not again.
SILENT = [
    Row("AttemptTimedOut: silent", hang, (1, 1), "AttemptTimedOut", EMBEDDING, settings={"attempt_timeout": HASTE_S}),
    Row(
        "AttemptTimedOut: trickles",
        drip(every=0.02),
        (1, 1),
        "AttemptTimedOut",
        EMBEDDING,
        settings={"attempt_timeout": HASTE_S},
    ),
    Row("AttemptTimedOut: silent", hang, (1, 1), "AttemptTimedOut", IMAGE, settings={"attempt_timeout": HASTE_S}),
    Row("AttemptTimedOut: silent", hang, (1, 1), "AttemptTimedOut", RERANK, settings={"attempt_timeout": HASTE_S}),
    Row(
        "AttemptTimedOut: silent",
        hang,
        (1, 1),
        "AttemptTimedOut",
        CLASSIFICATION,
        settings={"attempt_timeout": HASTE_S},
    ),
    Row("AttemptTimedOut: silent", hang, (1, 1), "AttemptTimedOut", SPARSE, settings={"attempt_timeout": HASTE_S}),
    Row("AttemptTimedOut: silent", hang, (1, 1), None, CHAT, settings={"first_content_timeout": HASTE_S}),
]
SSE = {"content-type": "text/event-stream"}
BAD = [
    bad_vectors("garbage", garbage()),
    bad_vectors("HTML", html(200)),
    bad_vectors("wrong count", vectors(unit_vectors(["a"]))),
    bad_vectors("rows of different length", vectors([[0.1, 0.2], [0.3]])),
    bad_vectors("NaN", vectors([[float("nan"), 0.1], [0.1, 0.2]])),
    bad_vectors("null", vectors([[None, 0.1], [0.1, 0.2]])),
    bad_vectors("all zero", vectors([[0.0, 0.0], [0.1, 0.2]])),
    bad_vectors("no data", Reply(200, {"ok": True})),
    bad_vectors(
        "index twice", Reply(200, {"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]})
    ),
    bad_vectors("redirect to another host", redirect("http://127.0.0.2:9/v1/embeddings")),
    bad_chat("garbage", garbage()),
    bad_chat("HTML", html(200)),
    bad_chat("redirect to another host", redirect("http://elsewhere.test/")),
    bad_chat("half JSON", cut(b'{"choices": [', missing=0)),
    bad_chat("a list", Reply(200, [])),
    bad_chat("no choices", Reply(200, {"choices": []})),
    bad_chat("{}", Reply(200, {})),
    bad_chat("no JSON in SSE", Reply(200, "data: hello\n\n", SSE)),
    bad_chat("empty SSE", Reply(200, "", SSE)),
    bad_ranking("garbage", garbage()),
    bad_ranking("HTML", html(200)),
    bad_ranking("no results", Reply(200, {"ok": True})),
    bad_ranking("results that are no list", Reply(200, {"results": {"0": 0.5}})),
    bad_ranking("too few", results()),
    bad_ranking("too many", results(0.5, 0.5, 0.5)),
    bad_ranking("NaN", results(float("nan"), 0.5)),
    bad_ranking("infinity", results(float("inf"), 0.5)),
    bad_ranking("null", results(None, 0.5)),
    bad_ranking("a score in words", results("0.9", 0.5)),
    bad_ranking("true", results(True, 0.5)),
    bad_ranking("index twice", Reply(200, {"results": entries([0.1])[:1] * 2})),
    bad_ranking("index of no document", Reply(200, {"results": [{"index": 7, "relevance_score": 0.5}]})),
    bad_ranking("no index", Reply(200, {"results": [{"relevance_score": 0.5}]})),
    bad_ranking("numbers alone", Reply(200, [0.5])),
    bad_ranking("redirect to another host", redirect("http://127.0.0.2:9/")),
    bad_labels("garbage", garbage()),
    bad_labels("HTML", html(200)),
    bad_labels("no data", Reply(200, {"ok": True})),
    bad_labels("an object for data", Reply(200, {"data": {"label": "a", "score": 0.5}})),
    bad_labels("too few", labels()),
    bad_labels("too many", labels(label_list("a"), label_list("b"))),
    bad_labels("no label", labels([])),
    bad_labels("a label without a name", labels([{"label": "", "score": 0.5}])),
    bad_labels("names alone", labels(["positive"])),
    bad_labels("NaN", labels([{"label": "a", "score": float("nan")}])),
    bad_labels("infinity", labels([{"label": "a", "score": float("inf")}])),
    bad_labels("null", labels([{"label": "a", "score": None}])),
    bad_labels("a score in words", labels([{"label": "a", "score": "0.9"}])),
    bad_labels("true", labels([{"label": "a", "score": True}])),
    bad_labels("redirect to another host", redirect("http://127.0.0.2:9/")),
    bad_image("garbage", garbage()),
    bad_image("HTML", html(200)),
    bad_image("an empty body", Reply(200, b"")),
    bad_image("an image where JSON belongs", Reply(200, png("x"), {"content-type": "image/png"})),
    bad_image("no data", Reply(200, {"ok": True})),
    bad_image("wrong count", Reply(200, image_list(png("x"), png("y")))),
    bad_image("no image", Reply(200, image_list())),
    bad_image("null", Reply(200, {"data": [{"b64_json": None}]})),
    bad_image("not base64", Reply(200, {"data": [{"b64_json": "%%%"}]})),
    bad_image("a GIF", Reply(200, image_list(b"GIF89a" + bytes(20)))),
    bad_image("text", Reply(200, image_list(b"<html>no</html>"))),
    bad_image("a URL that is not https", Reply(200, {"data": [{"url": "http://127.0.0.2:9/a.png"}]})),
    bad_image("a file's URL", Reply(200, {"data": [{"url": "file:///etc/passwd"}]})),
    bad_image("redirect to another host", redirect("http://127.0.0.2:9/")),
]
TABLE = [*REFUSALS, *OVERFLOWS, *OF_ONE_TARGET, *UNSUPPORTED, *RETRIED, *SILENT, *BAD]


def cases(rows: list[Row]) -> list[Any]:
    """Return each row for each form of its tasks."""
    return [
        pytest.param(task, form, row, id=f"{task}, {form}, {row.name}")
        for row in rows
        for task in row.tasks
        for form in FORMS[task]
    ]


@pytest.fixture(params=TASKS_AND_FORMS, ids=", ".join)
def made(request: pytest.FixtureRequest) -> tuple[Task, Make]:
    task, form = request.param
    return task, maker(task, form)


@pytest.fixture
def primary(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The first server of a chain, of a kind that has the test's task."""
    with server_for(task_of(request)) as server:
        yield server


@pytest.fixture
def backup(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The second server of a chain."""
    with server_for(task_of(request)) as server:
        yield server


def task_of(request: pytest.FixtureRequest) -> Task:
    """Return the task that a test is about."""
    named: Task = request.node.callspec.params.get("task") or request.getfixturevalue("made")[0]
    return named


def chain(task: Task, *servers: Server) -> list[str]:
    """Name servers as targets."""
    return [target_at(task, server.url) for server in servers]


def start(task: Task, form: str, row: Row, *servers: Server, **settings: Any) -> Any:
    given = {"texts": row.texts} if task == "embedding" else {}
    return maker(task, form)(chain(task, *servers), **given, **row.settings, **settings)


@pytest.mark.parametrize(("task", "form", "row"), cases(TABLE))
def test_row_with_a_second_target(primary: Server, backup: Server, task: Task, form: str, row: Row) -> None:
    primary.always(row.fault)
    call = start(task, form, row, primary, backup)
    if row.requests[1]:
        assert call.served_by() == target_at(task, backup.url)
        assert len(call.clock.waited) == row.requests[0] - 1
        assert all(0 <= seconds <= 0.5 for seconds in call.clock.waited)
    else:
        error = call.refused(getattr(errors, row.alone or ""))
        assert row.words in str(error)
        assert error.status == row.answer.status  # type: ignore[union-attr]
    assert counts(task, primary, backup) == row.requests


@pytest.mark.parametrize(("task", "form", "row"), cases([row for row in TABLE if row.alone and row.requests[1]]))
def test_row_alone(primary: Server, task: Task, form: str, row: Row) -> None:
    primary.always(row.fault)
    error = start(task, form, row, primary, **row.settings_alone).refused(getattr(errors, row.alone or ""))
    if row not in BAD:  # which has classes of its own
        assert type(error).__name__ == row.alone
    assert counts(task, primary) == row.requests[:1]


@pytest.mark.parametrize(("task", "form", "row"), cases(UNSUPPORTED))
def test_what_a_target_cannot_do_does_not_rest_it(
    primary: Server, backup: Server, task: Task, form: str, row: Row
) -> None:
    primary.always(row.fault)
    call = start(task, form, row, primary, backup)
    for asked in range(1, 6):
        assert call.served_by() == target_at(task, backup.url)
        assert counts(task, primary, backup) == (asked, asked)
    assert call.gateway.status()[0].breaker == "closed"
    primary.recover()
    assert call.served_by() == target_at(task, primary.url)
    assert counts(task, backup) == (5,)


# What is no answer of a server, or leads to more than one request.


def test_a_refused_connection_is_tried_once_more_and_then_the_next(made: tuple[Task, Make], backup: Server) -> None:
    task, make = made
    call = make([target_at(task, dead_url()), *chain(task, backup)])
    seen: list[Any] = []
    call.gateway.observe(seen.append)
    assert call.served_by() == target_at(task, backup.url)
    assert [(attempt.outcome, attempt.calls) for attempt in seen[0].attempts] == [("failed", 2), ("served", 1)]
    assert len(call.clock.waited) == 1
    assert counts(task, backup) == (1,)


def test_a_failure_that_passes_is_not_seen_by_the_caller(
    made: tuple[Task, Make], primary: Server, backup: Server
) -> None:
    task, make = made
    primary.fail(Reply(503, {"error": "busy"}))
    assert make(chain(task, primary, backup)).served_by() == target_at(task, primary.url)
    assert counts(task, primary, backup) == (2, 0)


def test_rate_limited_goes_to_the_next_target_and_rests_until_it_said(
    made: tuple[Task, Make], primary: Server, backup: Server
) -> None:
    task, make = made
    # Another target of a chat is another model: up to three seconds are waited for the first.
    seconds = 20 if task in ("embedding", "sparse") else 4
    primary.fail(rate_limited(seconds))
    call = make(chain(task, primary, backup))
    call.served_by()
    call.served_by()
    assert counts(task, primary, backup) == (1, 2)
    assert call.clock.waited == []
    assert call.gateway.status()[0].retry_in == seconds
    call.clock.advance(seconds)
    call.served_by()
    assert counts(task, primary, backup) == (2, 2)


@pytest.mark.parametrize("waits", [[20], [7, 3]], ids=["once", "twice"])
def test_rate_limited_is_waited_out_when_nobody_else_can_serve(
    made: tuple[Task, Make], primary: Server, waits: list[int]
) -> None:
    task, make = made
    primary.fail(*map(rate_limited, waits))
    call = make(chain(task, primary))
    call.served_by()
    assert counts(task, primary) == (1 + len(waits),)
    assert call.clock.waited == waits


def test_model_loading_goes_to_the_next_target(made: tuple[Task, Make], primary: Server, backup: Server) -> None:
    task, make = made
    primary.fail(loading("m", 20.0))
    call = make(chain(task, primary, backup))
    assert call.served_by() == target_at(task, backup.url)
    assert counts(task, primary, backup) == (1, 1)
    assert call.clock.waited == []


def test_model_loading_is_waited_for_when_nobody_else_can_serve(made: tuple[Task, Make], primary: Server) -> None:
    task, make = made
    primary.fail(loading("m", 20.0))
    call = make(chain(task, primary))
    call.served_by()
    assert counts(task, primary) == (2,)
    assert call.clock.waited == [20]


# Exactly one layer retries.


@pytest.mark.parametrize(("max_retries", "requests"), [(0, 1), (1, 2), (3, 4)])
def test_max_retries_is_the_number_of_retries_and_zero_means_zero(
    made: tuple[Task, Make], primary: Server, max_retries: int, requests: int
) -> None:
    task, make = made
    primary.always(Reply(503, {"error": "busy"}))
    make(chain(task, primary), max_retries=max_retries).refused(errors.Overloaded)
    assert counts(task, primary) == (requests,)


@pytest.mark.parametrize("answer", [rate_limited(1), loading("m", 1.0)], ids=["429", "loading"])
def test_max_retries_zero_waits_for_nobody(made: tuple[Task, Make], primary: Server, answer: Reply) -> None:
    task, make = made
    primary.always(answer)
    call = make(chain(task, primary), max_retries=0)
    call.refused(errors.GatewayError)
    assert counts(task, primary) == (1,)
    assert call.clock.waited == []


# What the caller is told.


@pytest.mark.parametrize(
    ("second", "kind"),
    [(Reply(404, {"error": "model 'x' not found"}), "ModelNotFound"), (html(200), "BadResponse")],
    ids=["404", "HTML"],
)
def test_the_error_of_a_chain_lists_every_target_with_its_reason(
    made: tuple[Task, Make], primary: Server, backup: Server, second: Reply, kind: str
) -> None:
    task, make = made
    primary.always(Reply(401))
    backup.always(second)
    error = make(chain(task, primary, backup)).refused(errors.AllTargetsFailed)
    assert isinstance(error, errors.AllTargetsFailed)
    assert primary.url in str(error)
    assert backup.url in str(error)
    assert [(attempt.outcome, (attempt.error or "").partition(":")[0]) for attempt in error.attempts] == [
        ("failed", "AuthenticationFailed"),
        ("failed", kind),
    ]
    assert [type(each).__name__ for each in error.errors] == ["AuthenticationFailed", kind]
