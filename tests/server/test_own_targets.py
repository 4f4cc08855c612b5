"""Our own targets at our own server: they learn its space, demand it with each request, and notice when it changes."""

import operator
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import unit_vectors
from tests.servers.loopback import Recorded, Reply, Stream
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI
from tests.support.databases import a_ledger
from tests.support.gateway_server import RunningServer, ServerProcess, gateway_server
from tests.support.late import COLLECTED
from tests.support.server_keys import make_key

if COLLECTED:
    from hf_gateway import Gateway, SparseGateway
    from hf_gateway.errors import Quarantined, SpaceMismatch
    from hf_gateway.server.dispatch.chains import ChainTable
    from langchain_hf_gateway import HFGatewayEmbeddings

MODEL = "owner/prompts"
PATHS = {"tei": "/tei/docs", "openai": "/tei/docs/v1"}
KINDS = tuple(PATHS)
TEXTS = ["one", "two"]


def chain(url: str, *, model: str = MODEL, prompts: tuple[str, str] = ("query: ", "passage: "), more: str = "") -> str:
    """Return a chain over a server of text-embeddings-inference whose model has prompts; `more` are lines of its space."""
    return f"""
[chains.docs]
model = "{model}"
[[chains.docs.targets]]
kind = "tei"
url = "{url}"
[chains.docs.targets.space]
model = "{model}"
query_prompt = "{prompts[0]}"
document_prompt = "{prompts[1]}"
{more}
"""


@pytest.fixture
def upstream() -> Iterator[FakeTEI]:
    with FakeTEI(model_id=MODEL) as fake:
        yield fake


def change(running: RunningServer, config: str) -> None:
    """Put other chains in place of those of a server, as a reload does."""
    path = Path("changed.toml")
    path.write_text(config, encoding="utf-8")
    running.state.chains = ChainTable.build(running.state.settings, str(path))


def target_of(kind: str, running: RunningServer) -> str:
    return f"{kind}:{running.url}{PATHS[kind]}"


def near(rows: Iterable[Iterable[float]], expected: Iterable[Iterable[float]]) -> bool:
    """Return whether vectors are the same, up to what another engine or server rounds."""
    found, wanted = ([number for row in each for number in row] for each in (rows, expected))
    return len(found) == len(wanted) and max(map(abs, map(operator.sub, found, wanted))) < 1e-3


def texts_sent(upstream: FakeTEI) -> set[str]:
    return {text for request in upstream.requests if request.path == "/embed" for text in request.json["inputs"]}


@pytest.mark.parametrize("target", ["tei:{}", "openai:{}/v1"])
def test_langchains_class_at_our_server_is_measured_as_the_space_of_the_models_own_files(target: str) -> None:
    with Gateway("sentence-transformers/all-MiniLM-L6-v2", targets=["local"], check_space=True) as local:
        own = local.embed(TEXTS)
        with ServerProcess(None) as process:
            embeddings = HFGatewayEmbeddings(targets=[target.format(process.url)], check_space=True)
            assert near(embeddings.embed_documents(TEXTS), own.vectors)
            candidate = embeddings.gateway.candidates[0]
            assert embeddings.gateway.space == own.space
            assert candidate.space_check is not None
            assert candidate.space_check.state == "same"
            assert "the model's own files (measured" in str(candidate.space_check.against)
            embeddings.gateway.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", [True, False])
def test_prompts_are_put_once_by_the_server_in_both_roles(upstream: FakeTEI, kind: str, check: bool) -> None:
    with (
        gateway_server(chain(upstream.url)) as running,
        Gateway(MODEL, targets=[target_of(kind, running)], check_space=check) as gateway,
    ):
        gateway.embed(["first"])  # a server of OpenAI's API is known with its first answer
        upstream.requests.clear()
        documents = gateway.embed(["x"]).vectors
        queries = gateway.embed(["x"], role="query").vectors
    assert near(documents, unit_vectors(["passage: x"]))
    assert near(queries, unit_vectors(["query: x"]))
    sent = texts_sent(upstream)
    assert all(text.startswith(("query: ", "passage: ")) for text in sent)
    assert not any(text.count("query: ") + text.count("passage: ") > 1 for text in sent)


@pytest.mark.parametrize("kind", KINDS)
def test_also_the_first_vectors_have_their_prompt_once(upstream: FakeTEI, kind: str) -> None:
    space = f'{{ model = "{MODEL}", query_prompt = "query: ", document_prompt = "passage: " }}'
    with gateway_server(chain(upstream.url)) as running:
        path = Path("client.toml")
        url = target_of(kind, running).partition(":")[2]
        target = f'[[chains.c.targets]]\nkind = "{kind}"\nurl = "{url}"\nspace = {space}\n'
        path.write_text(f'[chains.c]\nmodel = "{MODEL}"\n{target}', encoding="utf-8")
        with Gateway.from_config("c", path, check_space=False) as gateway:
            vectors = gateway.embed(["x"]).vectors
    assert near(vectors, unit_vectors(["passage: x"]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", [True, False])
def test_a_server_that_answers_in_another_space_than_before_is_refused_before_its_target_is_asked(
    upstream: FakeTEI, kind: str, check: bool
) -> None:
    with (
        gateway_server(chain(upstream.url)) as running,
        Gateway(MODEL, targets=[target_of(kind, running)], check_space=check, max_retries=0) as gateway,
    ):
        before = gateway.embed(TEXTS).vectors
        with FakeTEI(model_id=MODEL) as other:
            change(running, chain(other.url, prompts=("", "")))
            with pytest.raises(Quarantined, match="query_prompt: 'query: ' and ''"):
                gateway.embed(TEXTS)
            assert other.requests == []
        change(running, chain(upstream.url))
        assert gateway.embed(TEXTS).vectors == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_target_serves_in_its_place(upstream: FakeTEI, kind: str) -> None:
    with gateway_server(chain(upstream.url)) as running, gateway_server(chain(upstream.url)) as spare:
        targets = [target_of(kind, running), target_of(kind, spare)]
        with Gateway(MODEL, targets=targets, check_space=True) as gateway:
            gateway.embed(TEXTS)
            change(running, chain(upstream.url, prompts=("", "")))
            assert gateway.embed(TEXTS).served_by == (targets[1],)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_knows_more_of_the_same_space_is_not_refused(upstream: FakeTEI, kind: str) -> None:
    with (
        gateway_server(chain(upstream.url)) as running,
        Gateway(MODEL, targets=[target_of(kind, running)], check_space=False) as gateway,
    ):
        before = gateway.embed(TEXTS).vectors
        change(running, chain(upstream.url, more='dimension = 384\npooling = "mean"'))
        assert gateway.embed(TEXTS).vectors == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_declares_another_space_is_quarantined(upstream: FakeTEI, kind: str) -> None:
    with (
        gateway_server(chain(upstream.url)) as running,
        Gateway(MODEL, targets=[target_of(kind, running)], check_space=True, query_prompt="ask: ") as gateway,
        pytest.raises(Quarantined, match="query_prompt: 'ask: ' and 'query: '"),
    ):
        gateway.embed(TEXTS)


def test_another_model_is_refused_at_once(upstream: FakeTEI) -> None:
    with (
        gateway_server(chain(upstream.url)) as running,
        Gateway("owner/another", targets=[target_of("tei", running)], check_space=True) as gateway,
        pytest.raises(SpaceMismatch, match=f"serves {MODEL}"),
    ):
        gateway.embed(TEXTS)
    assert upstream.requests == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"dimensions": 8}, {"normalize": True}, {"truncate": True}])
def test_what_a_chain_does_with_the_vectors_itself_is_no_difference(
    upstream: FakeTEI, kind: str, options: dict[str, Any]
) -> None:
    facts = "dimension = 384\nnormalized = false\nmax_tokens = 256"
    with (
        gateway_server(chain(upstream.url, more=facts)) as running,
        Gateway(MODEL, targets=[target_of(kind, running)], check_space=True, **options) as gateway,
    ):
        result = gateway.embed(TEXTS)
    assert result.vectors.dim == options.get("dimensions", 384)


@pytest.mark.parametrize("role", ["document", "query"])
def test_sparse_vectors_have_their_role_too(role: Any) -> None:
    with (
        SparseGateway(targets=["bm25"]) as own,
        gateway_server('[chains.words]\ntask = "sparse"\ntargets = ["bm25"]\n') as running,
    ):
        with SparseGateway(targets=[f"tei:{running.url}/tei/words"], check_space=True) as gateway:
            found = gateway.embed(["a b a", "c"], role=role)
            assert found.space == own.space
        expected = own.embed(["a b a", "c"], role=role).vectors
    assert [vector.to_dict() for vector in found.vectors] == [vector.to_dict() for vector in expected]


def test_a_key_for_embeddings_alone_is_enough(upstream: FakeTEI, tmp_path: Path) -> None:
    with a_ledger("sqlite", tmp_path) as url:
        key = make_key(url, scopes={"embed"})
        with gateway_server(chain(upstream.url), database=url) as running:
            for kind in KINDS:
                with Gateway(MODEL, targets=[target_of(kind, running)], api_key=key, check_space=True) as gateway:
                    assert near(gateway.embed(["x"]).vectors, unit_vectors(["passage: x"]))


class Named(FakeOpenAI):
    """Names a space with its answers, and does not describe it, as if a proxy let one route through."""

    def handle(self, request: Recorded) -> Reply | Stream:
        reply = super().handle(request)
        if isinstance(reply, Reply) and request.path.endswith("/embeddings"):
            reply.headers["x-hf-gateway-space"] = "owner/hidden#000000000000"
        return reply


def test_a_space_that_is_not_described_is_no_fault() -> None:
    with (
        Named(models=None) as fake,
        Gateway("owner/hidden", targets=[f"openai:{fake.url}"], check_space=True) as gateway,
    ):
        gateway.embed(TEXTS)
        gateway.embed(TEXTS)
        assert sum("/spaces/" in each.target for each in fake.requests) == 1
        assert all("x-hf-gateway-space" not in request.headers for request in fake.requests)


def test_other_servers_are_sent_nothing_more(primary: FakeOpenAI) -> None:
    with Gateway("owner/name", targets=[f"openai:{primary.url}"], check_space=True) as gateway:
        gateway.embed(TEXTS)
    assert {request.path for request in primary.requests} == {"/v1/embeddings"}
    for request in primary.requests:
        assert "x-hf-gateway-space" not in request.headers
        assert "input_type" not in request.json
