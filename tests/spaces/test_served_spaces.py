"""What servers say of their vectors, field by field, and what the guard makes of it before the first vector gets out."""

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target, VectorSpace, errors
from hf_gateway.backends import hf as hf_backend
from hf_gateway.runtime.driver import Clock
from hf_gateway.testing import ManualClock
from tests.servers import unit_vectors
from tests.servers.loopback import Reply, dead_url
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeHub, FakeRouter, HubModel
from tests.servers.tei import FakeTEI
from tests.support.backends import Toolkit, model_folder

MODEL = "Test/Embedder"
"""A model of which nothing is on this machine."""
COMMIT, OTHER = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf", "fca14538aa9956a46526bd1d0d11d69e19b5a101"
TEXTS = ["one", "two"]


@pytest.fixture(params=["sync", "async"])
def embed(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def call(gateway: Gateway, texts: list[str], **how: Any) -> Any:
        return asyncio.run(gateway.aembed(texts, **how)) if request.param == "async" else gateway.embed(texts, **how)

    return call


def guarded(*targets: Any, **settings: Any) -> Gateway:
    return Gateway(settings.pop("model", MODEL), targets, **{"check_space": True, "clock": ManualClock(), **settings})


def served(gateway: Gateway, place: int = 0) -> VectorSpace | None:
    """Ask one target as the guard does."""
    gateway._prepare()
    ability: Any = gateway.candidates[place].ability
    said: VectorSpace | None = gateway._driver.perform(ability.served_space(), timeout=10, target="it")
    return said


def known(space: VectorSpace | None) -> dict[str, Any]:
    """What a space says besides its model, which is always the declared one."""
    assert space is not None
    assert space.model == MODEL
    return {name: value for name, value in space.to_dict().items() if name != "model"}


# A difference can be read: the field, both values, and why it matters.


@pytest.mark.parametrize(
    ("field", "left", "right", "why"),
    [
        ("model", "BAAI/bge-small-en-v1.5", "thenlper/gte-small", "cannot be compared, whatever their dimension"),
        ("revision", COMMIT, OTHER, "the weights may have changed"),
        ("dimension", 384, 768, "of different length"),
        ("pooling", "mean", "cls", "pooled another way"),
        ("normalized", True, False, "only one side has length 1"),
        ("query_prompt", "query: ", "", "part of the text that is embedded"),
        ("document_prompt", "", "passage: ", "part of the text that is embedded"),
        ("max_tokens", 256, 512, "cut at another place"),
        ("precision", "float", "q4_k_m", "quantised weights"),
    ],
)
def test_a_difference_says_the_field_both_values_and_why(field: str, left: Any, right: Any, why: str) -> None:
    one, other = (VectorSpace(**{"model": MODEL, field: value}) for value in (left, right))
    (found,) = one.differences(other)
    assert str(found).startswith(f"{field}: {left!r} and {right!r} (")
    assert why in str(found)
    assert one.differences(VectorSpace(left if field == "model" else MODEL)) == []


def test_every_field_has_its_words() -> None:
    one = VectorSpace("a", "a", 1, "a", True, "a", "a", 1, "a")
    other = VectorSpace("b", "b", 2, "b", False, "b", "b", 2, "b")
    assert [found.field for found in one.differences(other)] == [each.name for each in dataclasses.fields(VectorSpace)]


# tei, and endpoints that run it


@pytest.mark.parametrize("kind", ["tei", "endpoint"])
@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, {"pooling": "mean", "precision": "float"}),
        ({"pooling": "cls", "model_dtype": "float16"}, {"pooling": "cls", "precision": "float"}),
        ({"pooling": "last_token", "model_dtype": "bfloat16"}, {"pooling": "lasttoken", "precision": "float"}),
        ({"pooling": "splade", "model_dtype": "INT8"}, {"pooling": "splade", "precision": "int8"}),
        ({"pooling": "Mean", "model_dtype": ""}, {"pooling": "mean"}),
        ({"pooling": None, "model_dtype": None}, {}),
    ],
)
def test_tei_says_how_it_pools_and_computes(kind: str, facts: dict[str, Any], said: dict[str, Any]) -> None:
    with FakeTEI(model_id=MODEL, **facts) as tei:
        assert known(served(guarded(f"{kind}:{tei.url}"))) == said


@pytest.mark.parametrize("kind", ["tei", "endpoint"])
@pytest.mark.parametrize(
    ("wanted", "serves", "said"),
    [
        (None, OTHER, None),
        ("main", OTHER, None),
        ("v1.5", OTHER, None),
        ("refs/pr/1", OTHER, None),
        ("20240101", OTHER, None),  # a tag that could be the start of a commit
        (COMMIT, COMMIT, COMMIT),
        (COMMIT, OTHER, OTHER),
        (COMMIT, None, None),
    ],
)
def test_only_a_commit_is_compared_with_a_commit(
    kind: str, wanted: str | None, serves: str | None, said: str | None
) -> None:
    with FakeTEI(model_id=MODEL, model_sha=serves) as tei:
        gateway = guarded(Target(kind, url=tei.url, revision=wanted))
        assert known(served(gateway)).get("revision") == said
        if said == OTHER:
            with pytest.raises(errors.Quarantined, match=f"revision: '{COMMIT}' and '{OTHER}'"):
                gateway.embed(TEXTS)
        else:
            assert gateway.embed(TEXTS).vectors.tolist() == unit_vectors(TEXTS)


@pytest.mark.parametrize("kind", ["tei", "endpoint"])
def test_where_texts_are_cut_counts_only_when_they_may_be(kind: str, tmp_path: Path, embed: Callable[..., Any]) -> None:
    model = model_folder(tmp_path / "model", {})
    (tmp_path / "model" / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    with FakeTEI(model_id=MODEL, max_input_length=256) as tei:
        fitting = guarded(f"{kind}:{tei.url}", model=model, truncate=True)
        assert embed(fitting, TEXTS).vectors.tolist() == unit_vectors(TEXTS)
        tei.max_input_length = 512
        gateway = guarded(f"{kind}:{tei.url}", model=model)
        assert gateway.space.max_tokens == 256
        assert embed(gateway, TEXTS).vectors.tolist() == unit_vectors(TEXTS)
        cutting = guarded(f"{kind}:{tei.url}", model=model, truncate=True)
        with pytest.raises(errors.Quarantined, match="max_tokens: 256 and 512"):
            embed(cutting, TEXTS)


@pytest.mark.parametrize("kind", ["tei", "endpoint"])
@pytest.mark.parametrize(
    ("wanted", "serves"),
    [
        (MODEL, MODEL.lower()),
        (MODEL, "/repository"),
        (MODEL, "./models/embedder"),
        (None, "BAAI/bge-small-en-v1.5"),
        ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
    ],
)
def test_one_model_may_be_written_in_several_ways(kind: str, wanted: str | None, serves: str) -> None:
    with FakeTEI(model_id=serves) as tei:
        assert guarded(f"{kind}:{tei.url}", model=wanted).embed(TEXTS).vectors.tolist() == unit_vectors(TEXTS)


def test_another_model_is_told_by_tei_at_once_and_by_an_endpoint_through_the_guard() -> None:
    with FakeTEI(model_id="BAAI/bge-small-en-v1.5") as tei:
        with pytest.raises(errors.SpaceMismatch, match=r"serves BAAI/bge-small-en-v1\.5, and the chain wants"):
            guarded(f"tei:{tei.url}").embed(TEXTS)
        with pytest.raises(errors.Quarantined, match=r"model: 'Test/Embedder' and 'BAAI/bge-small-en-v1\.5'"):
            guarded(f"endpoint:{tei.url}").embed(TEXTS)
        for kind in ("tei", "endpoint"):
            declared = Target(kind, url=tei.url, space=VectorSpace(MODEL))
            assert guarded(declared).embed(TEXTS).vectors.tolist() == unit_vectors(TEXTS)
        assert (tei.count("/embed"), tei.count("/")) == (
            3,
            2,
        )  # the canaries, once more for the first of the space, and the texts


@pytest.mark.parametrize("kind", ["tei", "endpoint"])
def test_a_tei_that_pools_otherwise_is_quarantined_before_any_vector(
    kind: str, tmp_path: Path, embed: Callable[..., Any]
) -> None:
    with FakeTEI(model_id=MODEL, pooling="cls") as wrong, FakeTEI(model_id=MODEL) as right:
        gateway = guarded(
            f"{kind}:{wrong.url}", f"{kind}:{right.url}", model=model_folder(tmp_path / "model", {"query": "q: "})
        )
        before = gateway.space
        result = embed(gateway, TEXTS)
        assert result.vectors.tolist() == unit_vectors(TEXTS)
        assert result.served_by == (f"{kind}:{right.url}",)
        assert "pooling: 'mean' and 'cls' (the same tokens pooled another way" in (result.attempts[0].error or "")
        embed(gateway, TEXTS, role="query")
        # Asked once, and never for a vector.
        assert [request.path for request in wrong.requests] == ["/info"]
        assert right.count("/info") == 1
        assert gateway.space == before == result.space


def test_what_an_own_target_declares_is_held_against_it_too() -> None:
    with FakeTEI(model_id=MODEL, pooling="cls") as tei:
        declared = Target("tei", url=tei.url, space=VectorSpace(MODEL, pooling="mean"))
        with pytest.raises(errors.Quarantined, match="pooling: 'mean' and 'cls'"):
            guarded(declared).embed(TEXTS)


def test_a_tei_that_cannot_be_asked_fails_as_its_first_request_would() -> None:
    with FakeTEI(model_id=MODEL, api_key="nobody knows") as tei:
        for checked in (True, False):
            with pytest.raises(errors.AuthenticationFailed):
                guarded(f"tei:{tei.url}", check_space=checked).embed(TEXTS)
        assert tei.count("/info") == 2


@pytest.mark.parametrize("token_vectors", [False, True])
def test_an_endpoint_with_another_container_says_nothing_and_serves(
    token_vectors: bool, embed: Callable[..., Any]
) -> None:
    with Toolkit(token_vectors=token_vectors) as toolkit:
        gateway = guarded(Target("endpoint", url=toolkit.url, space=VectorSpace(MODEL, pooling="mean")))
        assert served(gateway) is None
        for _ in range(3):
            embed(gateway, TEXTS)
        assert toolkit.count("/info") == 1


def test_an_endpoint_that_embeds_nothing_says_nothing() -> None:
    with FakeTEI(model_id=MODEL, model_type="reranker") as tei:
        assert served(guarded(f"endpoint:{tei.url}")) is None


# ollama


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"pooling_type": 1}, {"dimension": 384, "pooling": "mean", "precision": "float"}),
        ({"pooling_type": 2, "quantization": "BF16"}, {"dimension": 384, "pooling": "cls", "precision": "float"}),
        ({"pooling_type": 3, "quantization": "F32"}, {"dimension": 384, "pooling": "lasttoken", "precision": "float"}),
        ({"pooling_type": 0, "quantization": "Q8_0"}, {"dimension": 384, "precision": "q8_0"}),
        ({"pooling_type": 4, "quantization": "Q4_K_M"}, {"dimension": 384, "precision": "q4_k_m"}),
        ({"family": "nomic-bert", "embedding_length": 768, "quantization": "unknown"}, {"dimension": 768}),
    ],
)
def test_ollama_says_what_the_pulled_file_is(facts: dict[str, Any], said: dict[str, Any]) -> None:
    with FakeOllama({"embedder": facts}) as ollama:
        space = served(guarded(Target("ollama", url=ollama.url, model="embedder")))
        assert space is not None
        assert space.to_dict() == {"model": "embedder", **said}


@pytest.mark.parametrize(
    ("facts", "options", "said"),
    [
        ({"context_length": 512, "num_ctx": 256}, {}, 256),
        ({"context_length": 512, "num_ctx": 8192}, {}, 512),
        ({"context_length": 8192, "num_ctx": 256}, {"num_ctx": 1024}, 1024),
        ({"context_length": 8192, "num_ctx": 256}, {"options": {"num_ctx": 128}}, 128),
        ({"context_length": 512, "num_ctx": "none"}, {}, 512),
        ({"context_length": 8192, "num_ctx": "none"}, {}, None),  # as much as the machine allows
    ],
)
def test_ollama_cuts_where_the_first_of_its_limits_is(
    facts: dict[str, Any], options: dict[str, Any], said: int | None
) -> None:
    with FakeOllama({"embedder": facts}) as ollama:
        target = Target("ollama", url=ollama.url, model="embedder", options=options)
        cutting, refusing = served(guarded(target, truncate=True)), served(guarded(target))
        assert cutting is not None
        assert refusing is not None
        assert (cutting.max_tokens, refusing.max_tokens) == (said, None)


def test_the_dimension_that_the_chain_cuts_itself_is_no_difference() -> None:
    with FakeOllama({"embedder": {}}) as ollama:
        target = Target("ollama", url=ollama.url, model="embedder", space=VectorSpace("embedder", dimension=384))
        assert len(guarded(target, dimensions=64).embed(TEXTS).vectors[0]) == 64


def test_a_quantised_build_differs_by_name_only_where_the_precision_is_declared(embed: Callable[..., Any]) -> None:
    with FakeOllama({"embedder": {"quantization": "Q4_K_M"}}) as ollama:
        target = Target("ollama", url=ollama.url, model="embedder")
        assert embed(guarded(target), TEXTS).vectors.tolist() == unit_vectors(TEXTS)
        shown = ollama.count("/api/embed")
        exact = dataclasses.replace(target, space=VectorSpace("embedder", precision="float"))
        with pytest.raises(errors.Quarantined, match="precision: 'float' and 'q4_k_m'"):
            embed(guarded(exact), TEXTS)
        assert ollama.count("/api/embed") == shown


@pytest.mark.parametrize(
    "fault",
    [
        Reply(404, "404 page not found"),
        Reply(500, {"error": "no"}),
        Reply(200, []),
        Reply(200, {"model_info": "none", "details": None}),
        Reply(
            200, {"model_info": {"general.architecture": "bert", "bert.pooling_type": [1], "bert.context_length": "x"}}
        ),
    ],
)
def test_an_ollama_that_shows_nothing_serves_nevertheless(fault: Reply, embed: Callable[..., Any]) -> None:
    with FakeOllama({"embedder": {}}) as ollama:
        ollama.always(fault, path="/api/show")
        gateway = guarded(Target("ollama", url=ollama.url, model="embedder"))
        for _ in range(3):
            assert embed(gateway, TEXTS).vectors.tolist() == unit_vectors(TEXTS)
        assert ollama.count("/api/show") == 1


def test_a_model_that_is_not_pulled_still_says_how_to_pull_it() -> None:
    with FakeOllama({}) as ollama, pytest.raises(errors.ModelNotFound, match="ollama pull embedder"):
        guarded(Target("ollama", url=ollama.url, model="embedder")).embed(TEXTS)


def test_a_server_that_does_not_answer_is_asked_twice_at_most() -> None:
    with FakeOllama({"embedder": {}}) as ollama:
        gateway = guarded(Target("ollama", url=ollama.url, model="embedder"))
        ollama.always(Reply(503, {"error": "server busy"}), path="/api/show")
        assert [served(gateway) for _ in range(4)] == [None] * 4
        assert ollama.count("/api/show") == 2


def test_what_a_server_did_not_say_the_first_time_is_learned_the_second() -> None:
    with FakeOllama({"embedder": {"pooling_type": 2}}) as ollama:
        gateway = guarded(Target("ollama", url=ollama.url, model="embedder"))
        ollama.fail(Reply(503, {"error": "server busy"}), path="/api/show")
        said = [served(gateway) for _ in range(3)]
        assert [space and space.pooling for space in said] == [None, "cls", "cls"]
        assert ollama.count("/api/show") == 2


# openai


def test_an_openai_server_is_asked_for_its_length_only_where_texts_may_be_cut(embed: Callable[..., Any]) -> None:
    with FakeOpenAI(models=[MODEL, "another/model"], max_input_length=512) as server:
        refusing = guarded(f"openai:{server.url}")
        assert embed(refusing, TEXTS).vectors.tolist() == unit_vectors(TEXTS)
        assert server.count("/v1/models") == 0
        cutting = guarded(f"openai:{server.url}", truncate=True)
        assert known(served(cutting)) == {"max_tokens": 512}
        for _ in range(2):
            embed(cutting, TEXTS)
        assert server.count("/v1/models") == 1
        declared = Target("openai", url=server.url, space=VectorSpace(MODEL, max_tokens=256))
        with pytest.raises(errors.Quarantined, match="max_tokens: 256 and 512"):
            embed(guarded(declared, truncate=True), TEXTS)


@pytest.mark.parametrize(
    ("entry", "window"),
    [
        ({"max_model_len": 512}, 512),
        ({"meta": {"vocab_type": 3, "n_ctx_train": 8192, "n_ctx": 2048, "n_embd": 384}}, 2048),
        ({"meta": {"n_ctx_train": 8192}}, None),
        ({"meta": None, "context_length": 4096}, 4096),
        ({"context_window": 131072}, 131072),
        ({"max_model_len": True}, None),
        ({"max_model_len": 0}, None),
        ({"max_model_len": "512"}, None),
    ],
)
def test_the_window_that_an_openai_server_states_is_read_in_each_servers_way(
    entry: dict[str, Any], window: int | None
) -> None:
    with FakeOpenAI(models=None) as server:
        server.always(Reply(200, {"object": "list", "data": [{"id": MODEL, **entry}]}), path="/v1/models")
        said = served(guarded(f"openai:{server.url}", truncate=True))
        assert (said.max_tokens if said else None) == window


@pytest.mark.parametrize(
    "listed",
    [
        Reply(404, {"detail": "Not Found"}),
        Reply(200, {"data": [{"id": MODEL}]}),
        Reply(200, {"data": [{"id": "a", "max_model_len": 1}, {"id": "b", "max_model_len": 2}]}),
        Reply(200, {"data": ["a", None]}),
        Reply(200, ["a"]),
    ],
)
def test_an_openai_server_that_lists_no_length_says_nothing(listed: Reply) -> None:
    with FakeOpenAI(models=None) as server:
        server.always(listed, path="/v1/models")
        assert served(guarded(f"openai:{server.url}", truncate=True)) is None


# hf: the router says nothing of a model, its files on the Hub do


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub with a model that pools by CLS and wants a prompt; nothing of it is on this machine."""
    folder = tmp_path / "repository"
    model_folder(folder, {"query": "query: "})
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls", "word_embedding_dimension": 384}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    providers = [
        {"provider": name, "providerId": MODEL, "status": "live", "task": "feature-extraction"}
        for name in ("hf-inference", "scaleway")
    ]
    monkeypatch.setattr(hf_backend, "_read", {})
    with FakeHub({MODEL: HubModel(folder=folder, providers=providers)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with FakeRouter(models={MODEL: {"hf-inference": MODEL, "scaleway": MODEL}}) as router:
        yield router


def hosted(router: FakeRouter, provider: str | None = None, **fields: Any) -> Target:
    return Target("hf", url=router.url, provider=provider, credential="hf_test", **fields)


def files(hub: FakeHub) -> list[str]:
    """The files that were fetched."""
    return [request.path.partition("/resolve/")[2] for request in hub.requests if "/resolve/" in request.path]


DESCRIBED = {"dimension": 384, "pooling": "cls", "normalized": True, "query_prompt": "query: ", "document_prompt": ""}
FETCHED = ["main/modules.json", "main/1_Pooling/config.json", "main/config_sentence_transformers.json"]


def test_the_hubs_files_say_what_a_hosted_model_is(router: FakeRouter, hub: FakeHub) -> None:
    assert known(served(guarded(hosted(router)))) == DESCRIBED
    assert files(hub) == FETCHED
    assert known(served(guarded(hosted(router), truncate=True))) == {**DESCRIBED, "max_tokens": 256}
    assert files(hub) == [*FETCHED, *FETCHED, "main/sentence_bert_config.json"]


def test_they_are_fetched_once_a_process(router: FakeRouter, hub: FakeHub, embed: Callable[..., Any]) -> None:
    for _ in range(2):
        gateway = guarded(hosted(router), hosted(router, "scaleway"))
        for _ in range(2):
            assert embed(gateway, TEXTS).vectors.tolist() == unit_vectors(TEXTS)
    served(gateway, 1)
    assert files(hub) == FETCHED


def test_they_are_read_at_the_targets_revision(router: FakeRouter, hub: FakeHub) -> None:
    hub.models[MODEL] = dataclasses.replace(hub.models[MODEL], refs=("main", "refs/pr/1"))
    said = known(served(guarded(hosted(router, revision="refs/pr/1"))))
    assert said == DESCRIBED  # no revision: nobody says that a provider runs it
    assert [request.target.partition("/resolve/")[2] for request in hub.requests[1:]] == [
        name.replace("main", "refs%2Fpr%2F1") for name in FETCHED
    ]


def test_what_the_chain_decides_itself_is_not_held_against_the_files(router: FakeRouter, hub: FakeHub) -> None:
    own = {"dimensions": 64, "normalize": True, "query_prompt": "", "document_prompt": "passage: "}
    assert known(served(guarded(hosted(router), **own))) == {"pooling": "cls"}
    assert "normalized" not in known(served(guarded(hosted(router, "scaleway"))))
    declared = hosted(router, space=VectorSpace(MODEL, pooling="mean", query_prompt="other: "))
    assert known(served(guarded(declared))) == {**DESCRIBED, "pooling": "mean", "query_prompt": "other: "}
    gateway = guarded(declared)
    assert gateway.embed(TEXTS).vectors.tolist() == unit_vectors(TEXTS)


def test_a_hosted_model_whose_files_differ_from_the_chain_is_quarantined(
    router: FakeRouter, hub: FakeHub, embed: Callable[..., Any]
) -> None:
    with FakeTEI(model_id=MODEL) as tei:
        gateway = guarded(hosted(router), Target("tei", url=tei.url, space=VectorSpace(MODEL, pooling="mean")))
        result = embed(gateway, TEXTS)
        assert result.served_by == (f"tei:{tei.url}",)
        assert "pooling: 'mean' and 'cls'" in (result.attempts[0].error or "")
    assert router.count() == 0


def test_a_prompt_on_the_hub_is_told_and_changes_neither_vectors_nor_the_spaces_name(
    router: FakeRouter, hub: FakeHub, embed: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    gateway = guarded(hosted(router))
    before = gateway.space
    for _ in range(2):
        assert embed(gateway, ["one"], role="query").vectors.tolist() == unit_vectors(["one"])
    assert gateway.space == before
    assert gateway.space.id == before.id
    assert caplog.text.count("wants 'query: ' before a query, and none is put; pass query_prompt='query: '") == 1
    told = guarded(hosted(router), query_prompt="query: ")
    assert embed(told, ["one"], role="query").vectors.tolist() == unit_vectors(["query: one"])


def test_files_on_this_machine_are_not_asked_for(router: FakeRouter, hub: FakeHub, tmp_path: Path) -> None:
    model = model_folder(tmp_path / "here", {})
    assert served(guarded(hosted(router), model=model)) is None
    assert hub.count() == 0


def test_a_plain_model_is_described_by_its_config(router: FakeRouter, hub: FakeHub) -> None:
    folder = hub.models[MODEL].folder
    assert folder is not None
    (folder / "modules.json").unlink()
    said = known(served(guarded(hosted(router))))
    assert (said["pooling"], said["dimension"], said["normalized"]) == ("mean", 384, False)
    assert files(hub) == ["main/modules.json", "main/config.json"]


UNREADABLE: dict[str, Any] = {
    "no files at all": {"modules.json": None, "config.json": None},
    "not JSON": {"modules.json": "<html>"},
    "not modules": {"modules.json": '["Pooling"]'},
    "a pooling that is a list": {"1_Pooling/config.json": "[1]"},
    "a way out of the model": {"modules.json": '[{"type": "m.Pooling", "path": "../../api/whoami-v2"}]'},
    "another server's file": {"modules.json": '[{"type": "m.Pooling", "path": "//127.0.0.1:9"}]'},
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_files_that_make_no_sense_say_nothing(
    router: FakeRouter, hub: FakeHub, fault: str, embed: Callable[..., Any]
) -> None:
    folder = hub.models[MODEL].folder
    assert folder is not None
    for name, content in UNREADABLE[fault].items():
        (folder / name).unlink() if content is None else (folder / name).write_text(content)
    gateway = guarded(hosted(router))
    assert served(gateway) is None
    asked = len(files(hub))
    assert asked <= 3
    assert embed(gateway, TEXTS).vectors.tolist() == unit_vectors(TEXTS)
    assert len(files(hub)) == asked
    assert not any("whoami" in name or "127" in name for name in files(hub))


@pytest.mark.parametrize("closed", [{"gated": "auto"}, {"private": True}])
def test_files_that_are_not_for_everybody_say_nothing(router: FakeRouter, hub: FakeHub, closed: dict[str, Any]) -> None:
    hub.models[MODEL] = dataclasses.replace(hub.models[MODEL], **closed)
    assert served(guarded(hosted(router))) is None


def test_the_hubs_key_goes_along_for_files_that_need_it(
    router: FakeRouter, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.models[MODEL] = dataclasses.replace(hub.models[MODEL], private=True, readers=("hf_test",))
    # Loopback stands for Hugging Face's own hosts here.
    for module in ("keys.credentials", "backends.hub_routes", "tasks.given_key", "keys.policy"):
        monkeypatch.setattr(f"hf_gateway.{module}.is_hugging_face", lambda url: url.startswith((router.url, hub.url)))
    monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
    assert known(served(guarded(Target("hf", credential="hf_test")))) == DESCRIBED
    assert {request.bearer for request in hub.requests} == {"hf_test"}


@pytest.mark.parametrize("away", ["dead", "down"])
def test_a_hub_that_is_away_holds_nothing_up_and_is_asked_once(
    router: FakeRouter, hub: FakeHub, away: str, embed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if away == "dead":
        monkeypatch.setenv("HF_ENDPOINT", dead_url())
    hub.always(Reply(503, {"error": "down"}))
    gateway = guarded(hosted(router))
    for _ in range(3):
        assert embed(gateway, TEXTS).vectors.tolist() == unit_vectors(TEXTS)
    assert hub.count() == (0 if away == "dead" else 1)


def test_a_hub_that_comes_back_is_asked_again_after_a_while(
    router: FakeRouter, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(Clock, "now", lambda _self: now)
    gateway = guarded(hosted(router), check_space=False, clock=Clock())
    hub.always(Reply(503, {"error": "down"}))
    gateway.embed(TEXTS)
    gateway.embed(TEXTS)
    assert hub.count() == 1
    now += 31
    gateway.embed(TEXTS)
    assert hub.count() == 2
