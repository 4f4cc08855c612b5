"""POST /api/v1/chat, as the guide for a prompt runtime describes it, and attacks on its templates."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hf_gateway import Gateway
from hf_gateway.retrieval.files import Passage
from hf_gateway.retrieval.index import make_index
from tests.servers.chat import script
from tests.servers.loopback import Reply, dead_url
from tests.servers.openai import FakeOpenAI
from tests.servers.router import LLAMA, FakeRouter
from tests.support.gateway_server import HASH_CHAIN, ServerProcess, chat_chain, gateway_server
from tests.support.late import COLLECTED
from tests.support.server_keys import bearer, make_key

if COLLECTED:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from hf_gateway import telemetry

BOT = {"context": "SupportBot", "component": "SupportBot"}
CONTEXTS = '[server]\ncontexts = "contexts"\n'


def template(
    text: str, context: str = "SupportBot", component: str = "SupportBot", file: str = "agent_response.md"
) -> None:
    folder = Path("contexts", context, "prompts", component)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text, encoding="utf-8")


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client of a server with contexts and without a chain for chat: the rendered prompt is the answer."""
    Path("contexts").mkdir()
    with gateway_server(HASH_CHAIN + CONTEXTS) as server, server.client() as made:
        yield made


def rendered(client: httpx.Client, data: dict[str, Any] | None = None, **fields: Any) -> str:
    answer = client.post("/api/v1/chat", json={**BOT, "data": data or {}, **fields})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["rendered"]
    text: str = answer.json()["rendered"]
    return text


def refused(client: httpx.Client, data: dict[str, Any] | None = None, **fields: Any) -> tuple[int, str, str]:
    answer = client.post("/api/v1/chat", json={**BOT, "data": data or {}, **fields})
    assert set(answer.json()) == {"error", "code"}, answer.text
    return answer.status_code, answer.json()["code"], answer.json()["error"]


def test_without_a_chain_for_chat_the_rendered_prompt_is_the_answer(client: httpx.Client) -> None:
    template("Answer politely: {{ user_input }}")
    body = {"tenant_id": "", **BOT, "query": "", "top_k": 0, "data": {"user_input": "hello"}}
    answer = client.post("/api/v1/chat", json=body)
    assert (answer.status_code, answer.json()) == (200, {"rendered": "Answer politely: hello"})


def test_the_model_answers_the_prompt_with_256_new_tokens() -> None:
    template("Answer politely: {{ user_input }}")
    with FakeOpenAI(models=None, brain=script("Good day.")) as fake:
        with gateway_server(chat_chain(fake.url) + CONTEXTS) as server, server.client() as client:
            answer = client.post("/api/v1/chat", json={**BOT, "data": {"user_input": "hello"}})
        with (
            gateway_server(chat_chain(fake.url, more="max_tokens = 7") + CONTEXTS) as server,
            server.client() as client,
        ):
            rendered(client, {"user_input": "hello"})
    assert answer.json() == {"rendered": "Good day."}
    assert answer.headers["x-hf-gateway-served-by"] == "openai:owner/model"
    first, second = (request.json for request in fake.requests if request.path.endswith("/chat/completions"))
    assert [message["content"] for message in first["messages"]] == ["Answer politely: hello"]
    assert [each.get("max_completion_tokens") or each.get("max_tokens") for each in (first, second)] == [256, 7]


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_a_model_that_fails_is_a_bad_gateway(status: int) -> None:
    template("x")
    with FakeOpenAI(models=None) as fake, gateway_server(chat_chain(fake.url) + CONTEXTS) as server:
        fake.always(Reply(status, {"error": {"message": "no"}}))
        with server.client() as client:
            assert refused(client)[:2] == (502, "bad_gateway")


def test_a_model_that_cannot_be_reached_is_a_bad_gateway_without_its_address() -> None:
    template("x")
    url = dead_url()
    with gateway_server(chat_chain(url) + CONTEXTS) as server, server.client() as client:
        status, code, message = refused(client)
    assert (status, code) == (502, "bad_gateway")
    assert url.partition("//")[2] not in message


def test_metrics_have_the_guides_names() -> None:
    template("x")
    with (
        FakeOpenAI(models=None) as fake,
        ServerProcess(chat_chain(fake.url) + CONTEXTS) as server,
        server.client() as client,
    ):
        rendered(client)
        fake.always(Reply(500, {"error": {"message": "no"}}))
        refused(client)
        text = client.get("/metrics").text
    assert 'cmp_hf_inference_latency_seconds_count{model="owner/model"} 2.0' in text
    assert 'cmp_hf_inference_errors_total{code="ServerError"} 1.0' in text


def test_the_span_has_the_guides_name_and_attributes() -> None:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    template("x")
    with FakeRouter() as router:
        target = f'{{ kind = "hf", url = "{router.url}", credential = "hf_test" }}'
        config = f'[chains.chat]\ntask = "chat"\nmodel = "{LLAMA}"\ntargets = [{target}]\n{CONTEXTS}'
        telemetry.enable_otel(tracers)
        try:
            with gateway_server(config) as server, server.client() as client:
                rendered(client)
        finally:
            telemetry.disable()
    (span,) = [each for each in exporter.get_finished_spans() if each.name == "huggingface.generate"]
    assert span.attributes is not None
    assert span.attributes["model_id"] == LLAMA
    assert span.attributes["provider"] == "nebius"  # as the router reports it, and otherwise "huggingface"


def test_the_component_and_the_file_pick_the_template(client: httpx.Client) -> None:
    template("one")
    template("two", component="Other")
    template("three", component="Other", file="search_response.md")
    assert rendered(client, component="") == "one"
    assert rendered(client, component="Other") == "two"
    assert rendered(client, component="Other", prompt_file="search_response.md") == "three"


def test_a_changed_template_is_read_again(client: httpx.Client) -> None:
    template("before")
    assert rendered(client) == "before"
    template("afterwards")
    assert rendered(client) == "afterwards"


def test_facts_of_the_request_cannot_be_replaced_by_data(client: httpx.Client) -> None:
    template("{{ tenant_id }}|{{ context }}|{{ component }}|{{ passages|length }}|{{ data.context }}|{{ query }}")
    data = {"tenant_id": "x", "context": "y", "component": "z", "passages": ["p"], "query": "mine"}
    assert rendered(client, data, tenant_id="acme") == "acme|SupportBot|SupportBot|0|y|mine"


def test_missing_data_is_named(client: httpx.Client) -> None:
    template("{{ user_input }}")
    status, code, message = refused(client)
    assert (status, code) == (400, "invalid_request")
    assert "user_input" in message


def test_an_invalid_template_is_the_operators_and_shows_no_path(client: httpx.Client) -> None:
    template("{% for %}")
    status, code, message = refused(client)
    assert (status, code) == (500, "template_invalid")
    assert "contexts" not in message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"context": "Nobody"}, "no context 'Nobody'"),
        ({"component": "Nobody"}, "no template prompts/Nobody/agent_response.md"),
        ({"prompt_file": "other.md"}, "no template prompts/SupportBot/other.md"),
    ],
)
def test_what_does_not_exist_is_404(client: httpx.Client, fields: dict[str, str], words: str) -> None:
    template("x")
    status, code, message = refused(client, **fields)
    assert (status, code) == (404, "not_found")
    assert words in message


def test_without_a_folder_of_contexts_nothing_exists() -> None:
    with gateway_server() as server, server.client() as client:
        status, code, message = refused(client)
    assert (status, code) == (404, "not_found")
    assert "[server] contexts" in message


@pytest.fixture
def indexed() -> Iterator[httpx.Client]:
    """A client of a server whose context SupportBot has an index."""
    texts = ["the zebra crossing is painted in May", "giraffes eat leaves", "the ferry leaves at noon"]
    with Gateway(targets="hash:64") as gateway:
        make_index(Path("manual"), [Passage(f"{text[4:9]}.md", text) for text in texts], gateway)
    template(
        "{% for each in passages %}[{{ each.source }}] {{ each.text }} {{ each.score > 0.1 }}\n{% endfor %}Q: {{ query }}"
    )
    with (
        gateway_server(HASH_CHAIN + CONTEXTS + '[server.indexes]\nSupportBot = "manual"\n') as server,
        server.client() as made,
    ):
        yield made


def test_passages_of_the_contexts_index_are_in_the_prompt(indexed: httpx.Client) -> None:
    text = rendered(indexed, query="when does the ferry leave at noon", top_k=2)
    assert text.splitlines()[0] == "[ferry.md] the ferry leaves at noon True"
    assert text.splitlines()[-1] == "Q: when does the ferry leave at noon"
    assert len(text.splitlines()) == 3
    assert len(rendered(indexed, query="ferry", top_k=50).splitlines()) == 4


@pytest.mark.parametrize(
    "fields",
    [{"query": "ferry", "top_k": 0}, {"query": "", "top_k": 2}, {"query": "ferry", "top_k": 2, "component": ""}],
)
def test_nothing_is_retrieved_without_a_component_a_query_and_a_count(
    indexed: httpx.Client, fields: dict[str, Any]
) -> None:
    assert rendered(indexed, **fields) == f"Q: {fields['query']}"


def test_a_context_without_an_index_has_no_passages(indexed: httpx.Client) -> None:
    template("{{ passages|length }}", context="Other")
    assert rendered(indexed, context="Other", query="ferry", top_k=2) == "0"


@pytest.mark.parametrize(
    ("rights", "status"),
    [
        ({"scopes": {"chat"}}, 403),
        ({"scopes": {"embed"}}, 403),
        ({"chains": frozenset({"other"})}, 403),
        ({"scopes": {"chat", "embed"}}, 200),
    ],
    ids=["no embed", "no chat", "another chain", "both scopes"],
)
def test_retrieval_needs_the_rights_to_embed(rights: dict[str, Any], status: int) -> None:
    url = f"sqlite:///{Path.cwd() / 'keys.sqlite'}"
    key = make_key(url, **rights)
    with Gateway(targets="hash:64") as gateway:
        make_index(Path("manual"), [Passage("a", "zebras")], gateway)
    template("{{ passages|length }}")
    config = (
        HASH_CHAIN + f'[server]\ncontexts = "contexts"\ndatabase = "{url}"\n[server.indexes]\nSupportBot = "manual"\n'
    )
    with gateway_server(config) as server, server.client(headers=bearer(key)) as client:
        answer = client.post("/api/v1/chat", json={**BOT, "query": "zebras", "top_k": 1})
    assert answer.status_code == status
    assert answer.json().get("rendered") == ("1" if status == 200 else None)


def test_a_key_calls_for_its_own_tenant_alone() -> None:
    url = f"sqlite:///{Path.cwd() / 'keys.sqlite'}"
    acme, nobody = make_key(url, tenant="acme"), make_key(url)
    template("{{ tenant_id }}")
    with gateway_server(HASH_CHAIN + f'[server]\ncontexts = "contexts"\ndatabase = "{url}"\n') as server:
        with server.client(headers=bearer(acme)) as client:
            assert rendered(client, tenant_id="acme") == rendered(client) == "acme"
            assert refused(client, tenant_id="other")[:2] == (403, "tenant_forbidden")
        with server.client(headers=bearer(nobody)) as client:
            assert refused(client, tenant_id="acme")[:2] == (403, "tenant_forbidden")
            assert rendered(client) == ""
        with server.client() as client:
            assert refused(client)[0] == 401


SSTI = [
    "{{ 7 * 7 }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{% for x in range(10) %}x{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{# a comment #}",
    "${7*7}",
    "{{ config }}",
]


@pytest.mark.parametrize("attack", SSTI)
def test_templates_in_data_are_text(client: httpx.Client, attack: str) -> None:
    template("<{{ user_input }}|{{ user_input|upper|lower }}|{{ items|join(',') }}|{{ nested.key }}>")
    data = {"user_input": attack, "items": [attack, attack], "nested": {"key": attack}}
    assert rendered(client, data) == f"<{attack}|{attack.lower()}|{attack},{attack}|{attack}>"


def test_templates_in_names_of_data_and_in_the_query_are_text(client: httpx.Client) -> None:
    template("{{ query }}|{% for name in data %}{{ name }}{% endfor %}")
    assert rendered(client, {SSTI[0]: 1}, query=SSTI[1]) == f"{SSTI[1]}|{SSTI[0]}"


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ data.__class__ }}",
        "{{ data|attr('__class__') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ ().__class__.__base__.__subclasses__() }}",
        "{{ user_input.format(1) }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ data.update({'a': 1}) }}",
        "{{ data.get.__self__ }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}",
        "{{ lipsum() }}",
        "{{ '%5d' % 1 }}",
        "{{ user_input|attr('format') }}",
    ],
)
def test_a_template_reaches_nothing_but_its_values(client: httpx.Client, attack: str) -> None:
    template(attack)
    status, _, message = refused(client, {"user_input": "{0.__class__}"})
    assert status in (400, 500)
    assert "root:" not in message


@pytest.mark.parametrize("field", ["context", "component", "prompt_file"])
@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../SupportBot",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "..\\a",
        ".hidden",
        "a\0b",
        "a\n",
        "%2e%2e",
        "é",
        "C:",
        "x" * 200,
        "a.md/../b",
    ],
)
def test_no_name_leaves_the_folder(client: httpx.Client, field: str, name: str) -> None:
    template("x")
    Path("secret.md").write_text("secret")
    status, code, message = refused(client, **{field: name})
    assert (status, code) == (400, "invalid_request")
    assert field in message


def test_links_that_leave_the_folder_lead_nowhere(client: httpx.Client, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "agent_response.md").write_text("secret")
    template("x")
    Path("contexts", "SupportBot", "prompts", "Out").symlink_to(outside, target_is_directory=True)
    Path("contexts", "SupportBot", "prompts", "SupportBot", "in.md").symlink_to("agent_response.md")
    assert refused(client, component="Out")[0] == 404
    assert rendered(client, prompt_file="in.md") == "x"


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("{% for a in items %}{% for b in items %}{{ b }}{% endfor %}{% endfor %}", {"items": ["x" * 100] * 1000}),
        ("{% for a in items %}{% for b in items %}{% endfor %}{% endfor %}", {"items": [1] * 5000}),
        (
            "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(depth) }}",
            {"depth": 60},
        ),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", {}),
        (
            "{% set x %}{% for a in range(n) %}{% for b in range(n) %}y{% endfor %}{% endfor %}{% endset %}",
            {"n": 99999},
        ),
        ("{% for a in range(n) %}{% endfor %}", {"n": 10**9}),
        ("{{ 'x' * n }}", {"n": 10**10}),
        ("{{ n * [1] }}", {"n": 10**10}),
        ("{{ 9 ** n }}", {"n": 10**10}),
        ("{{ n ** n }}", {"n": 10**10}),
        ("{{ text | replace('NAME', name) | length }}", {"text": "NAME" * 10_000, "name": "x" * 10_000}),
        ("{{ text.replace('', name) | length }}", {"text": "x" * 10_000, "name": "x" * 10_000}),
        ("{{ items | join(name) | length }}", {"items": ["x"] * 10_000, "name": "x" * 10_000}),
        ("{{ name.join(items) | length }}", {"items": ["x"] * 10_000, "name": "x" * 10_000}),
    ],
    ids=[
        "output",
        "empty loops",
        "macros",
        "recursion",
        "hidden loops",
        "range",
        "text",
        "list",
        "power",
        "powers",
        "replace",
        "method replace",
        "join",
        "method join",
    ],
)
def test_a_prompt_that_takes_too_much_ends(client: httpx.Client, text: str, data: dict[str, Any]) -> None:
    template(text)
    assert refused(client, data)[:2] == (400, "prompt_too_large")
    template("still here")
    assert rendered(client) == "still here"


@pytest.mark.parametrize(
    "text",
    [
        "{{ user_input|center(n) }}",
        "{{ user_input.ljust(n) }}",
        "{{ user_input.zfill(n) }}",
        "{{ [1]|batch(n, 1)|list }}",
    ],
)
def test_no_number_in_data_makes_a_text_of_any_size(client: httpx.Client, text: str) -> None:
    template(text)
    assert refused(client, {"user_input": "x", "n": 10**10})[0] in (400, 500)


def test_a_body_of_another_form_is_refused(client: httpx.Client) -> None:
    template("x")
    assert refused(client, top_k=-1)[:2] == (400, "invalid_request")
    assert refused(client, top_k=10**6)[:2] == (400, "invalid_request")
    answer = client.post("/api/v1/chat", json={**BOT, "data": ["x"]})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert client.get("/api/v1/elsewhere").json()["code"] == "not_found"


def test_texts_are_replaced_and_joined(client: httpx.Client) -> None:
    words = "{{ a | replace('x', b) }} {{ a.replace('x', b, 1) }} {{ c | join(b) }} {{ b.join(c) }}"
    template(words + " {{ c | map('replace', 'p', a) | join }}")
    answer = rendered(client, {"a": "xx", "b": "yz", "c": ["p", "q"]})
    assert answer == "yzyz yzx pyzq pyzq xxq"
