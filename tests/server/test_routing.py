"""The route table: every row has a scope, paths lead to one row, errors have the form of their surface."""

import contextlib
import http.client
from dataclasses import replace

import httpx
import pytest

from tests.support.gateway_server import RunningServer
from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway.server.access.caller import PUBLIC
    from hf_gateway.server.dispatch.call import Answer, Call
    from hf_gateway.server.dispatch.routing import Route, RouteTable
    from hf_gateway.server.surfaces.operation import SURFACE


async def nothing(call: "Call") -> "Answer":
    return Answer()


@pytest.mark.parametrize("scope", ["", "everything", None])
def test_a_route_without_a_scope_does_not_start(scope: str | None) -> None:
    with pytest.raises(ValueError, match="GET /x has no scope"):
        RouteTable([Route("GET", "/x", SURFACE, scope, nothing, "x")])  # type: ignore[arg-type]


def test_two_rows_for_the_same_requests_do_not_start() -> None:
    row = Route("GET", "/x", SURFACE, PUBLIC, nothing, "x")
    with pytest.raises(ValueError, match="GET /x is there twice"):
        RouteTable([row, row])


def test_a_route_that_is_left_out_does_not_start() -> None:
    surface = replace(SURFACE, left_out=("/x",))
    with pytest.raises(ValueError, match="/x is a route, and left out"):
        RouteTable([Route("GET", "/x", surface, PUBLIC, nothing, "x")])


def test_of_two_rows_that_fit_the_one_with_more_text_is_meant_in_whatever_order() -> None:
    rows = [Route("GET", path, SURFACE, PUBLIC, nothing, path) for path in ("/a/{id:path}", "/a/{id:path}/b")]
    for table in (RouteTable(rows), RouteTable(reversed(rows))):
        assert table.find("GET", "/a/x/b") == (rows[1], {"id": "x"})
        assert table.find("GET", "/a/x/c") == (rows[0], {"id": "x/c"})


def test_an_unknown_path_answers_404_in_the_form_of_its_surface(client: httpx.Client) -> None:
    of_openai = client.post("/v1/responses", json={})
    assert of_openai.status_code == 404
    assert of_openai.json()["error"]["type"] == "not_found_error"
    elsewhere = client.get("/nowhere")
    assert elsewhere.status_code == 404
    assert elsewhere.json() == {"error": "there is no route '/nowhere'", "code": "not_found"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/responses", "which is left out here; ask /v1/chat/completions"),
        ("/chat/completions", "did you mean '/v1/chat/completions'? The base URL of OpenAI's clients ends with /v1"),
        ("/embeddings", "did you mean '/v1/embeddings'?"),
        ("/v1/v1/embeddings", "did you mean '/v1/embeddings'? The base URL of OpenAI's clients ends once with /v1"),
        ("/tokenize", "GET /v1/models has the length"),
    ],
)
def test_a_path_that_clients_ask_for_by_mistake_is_answered_by_what_to_change(
    client: httpx.Client, path: str, said: str
) -> None:
    answer = client.post(path, json={})
    assert answer.status_code == 404
    told = answer.json()["error"]
    # OpenAI's clients show a message that stands where they look for it.
    assert said in (told if path == "/tokenize" else told["message"])


def test_a_wrong_method_answers_405_with_the_right_ones(client: httpx.Client) -> None:
    answer = client.get("/v1/embeddings")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/livez/", "//livez", "/LIVEZ", "/v1/../livez", "/livez%00", "/%2e/livez"])
def test_a_path_that_is_merely_similar_leads_nowhere(server: RunningServer, path: str) -> None:
    # The library for clients would write some of these in the usual form.
    connection = http.client.HTTPConnection(server.url.partition("//")[2], timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        assert connection.getresponse().status == 404
