"""HFGatewayEmbedding: a conformance suite for LlamaIndex embeddings, through every kind of target, and what is ours alone.

LlamaIndex has no standard tests. `EmbeddingConformance` is written to be one: it knows nothing of hf-gateway. A comment
names the fault elsewhere that a test stands against.
"""

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from hf_gateway import Gateway, Target, VectorSpace, errors
from tests.servers import unit_vectors
from tests.servers.loopback import Loopback
from tests.servers.router import MINILM, FakeHub, FakeRouter, HubModel
from tests.servers.tei import FakeTEI, error, overloaded
from tests.support.backends import BACKENDS, every_backend, model_folder
from tests.support.gates import Gates
from tests.support.late import COLLECTED
from tests.support.llamaindex_conformance import HOW, EmbeddingConformance, close, embed

if COLLECTED:
    from llama_index.core import Document, Settings, VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.ingestion import IngestionCache, IngestionPipeline
    from llama_index.core.ingestion.pipeline import get_transformation_hash
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.schema import TextNode
    from llama_index.core.storage.kvstore import SimpleKVStore
    from llama_index.core.vector_stores import SimpleVectorStore

    from llamaindex_hf_gateway import HFGatewayEmbedding


TEXTS = ["A try statement handles errors.", "A for loop repeats.", "one\ntwo", "中文", "The yield keyword."]
KEY = "hf_dontShowThisToAnybody"


@pytest.fixture(scope="module")
def backends() -> Iterator[tuple[dict[str, dict[str, Any]], dict[str, str]]]:
    with every_backend() as started:
        yield started


@pytest.fixture(scope="module")
def loaded() -> "HFGatewayEmbedding":
    """Keep the model in memory, from which every other instance in this process takes it."""
    embedding = HFGatewayEmbedding(model_name=MINILM)
    embedding.get_query_embedding("foo")
    return embedding


class TestEveryBackend(EmbeddingConformance):
    @pytest.fixture(autouse=True, params=BACKENDS)
    def _backend(self, request, backends, monkeypatch) -> None:
        params, environment = backends
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        self._params = params[request.param]
        if request.param == "local":
            request.getfixturevalue("loaded")

    @property
    def embedding_class(self) -> "type[BaseEmbedding]":
        return HFGatewayEmbedding

    @property
    def embedding_params(self) -> dict[str, Any]:
        return self._params


@pytest.fixture
def tei():
    with FakeTEI() as server:
        yield server


def through(server: Loopback, **fields: Any) -> "HFGatewayEmbedding":
    return HFGatewayEmbedding(targets=[f"tei:{server.url}"], **{"max_retries": 0, **fields})


def sent_texts(server: Loopback) -> list[list[str]]:
    return [request.json["inputs"] for request in server.requests if request.method == "POST"]


def nodes(count: int = 4) -> "list[TextNode]":
    return [TextNode(text=f"text {i}") for i in range(count)]


class TestNodesWithoutText:
    """One empty file of a thousand must not end an ingestion, nor go missing without a word."""

    @pytest.mark.parametrize("form", ["run", "arun"])
    def test_the_others_are_ingested_and_the_empty_ones_are_named(self, tei, caplog, form):
        documents = [
            Document(text="A cat purrs.", id_="cat"),
            Document(text="", id_="nothing"),
            Document(text="A dog barks.", id_="dog"),
        ]
        store = SimpleVectorStore()
        pipeline = IngestionPipeline(transformations=[SentenceSplitter(), through(tei)], vector_store=store)
        found = pipeline.run(documents=documents) if form == "run" else asyncio.run(pipeline.arun(documents=documents))
        embedded = {node.text for node in found if node.embedding is not None}
        assert embedded == {"A cat purrs.", "A dog barks."}
        assert len(store.data.embedding_dict) == 2
        assert sent_texts(tei)[-1] == ["A cat purrs.", "A dog barks."]
        (warning,) = [record.getMessage() for record in caplog.records if "no text" in record.getMessage()]
        assert "1 of 3" in warning
        assert "document nothing" in warning

    def test_a_run_of_nothing_but_empty_nodes_asks_nobody(self, tei):
        assert [node.embedding for node in through(tei)([TextNode(text=""), TextNode(text=" ")])] == [None, None]
        assert sent_texts(tei) == []

    def test_a_warning_stays_short(self, tei, caplog):
        through(tei)([TextNode(text="", id_=f"node-{number}") for number in range(1000)])
        (record,) = caplog.records
        assert len(record.getMessage()) < 400

    def test_a_text_that_cannot_be_sent_is_refused_by_its_nodes_id(self, tei):
        with pytest.raises(errors.InvalidRequest, match="node spoilt has a lone surrogate"):
            through(tei)([TextNode(text="fine"), TextNode(text="\ud800", id_="spoilt")])
        assert sent_texts(tei) == []


class TestRequests:
    @HOW
    async def test_twenty_five_texts_by_tens_are_three_requests(self, how, tei):
        # HuggingFaceInferenceAPIEmbedding sends twenty-five.
        texts = [f"text {i}" for i in range(25)]
        assert close(await embed(through(tei, embed_batch_size=10), how, texts), unit_vectors(texts))
        assert sorted(len(batch) for batch in sent_texts(tei)) == [5, 10, 10]

    async def test_one_connection_serves_call_after_call(self, tei):
        # The TEI integration opens one for every call; HuggingFaceInferenceAPIEmbedding breaks on one that was kept.
        embedding = through(tei)
        for _ in range(3):
            embedding.get_text_embedding("foo")
        assert tei.connections == 1
        for _ in range(3):
            await embedding.aget_text_embedding("foo")
        assert tei.connections == 2

    def test_prompts_go_before_the_text_as_they_are(self, tei):
        # HuggingFaceInferenceAPIEmbedding and the TEI integration add a blank, and strip the text.
        embedding = through(tei, query_prompt="query: ", document_prompt="passage:")
        embedding.get_query_embedding(" foo ")
        embedding.get_text_embedding("foo\n")
        assert sent_texts(tei) == [["query:  foo "], ["passage:foo\n"]]

    def test_the_models_own_saved_prompts_are_used_and_can_be_switched_off(self, tei, tmp_path):
        # HuggingFaceEmbedding passes "" for every model outside its table, and cannot switch off those in it.
        model = model_folder(tmp_path / "model", {"query": "search: ", "document": "store: "})
        through(tei, model_name=model).get_query_embedding("foo")
        through(tei, model_name=model).get_text_embedding("foo")
        through(tei, model_name=model, query_prompt="").get_query_embedding("foo")
        assert sent_texts(tei) == [["search: foo"], ["store: foo"], ["foo"]]

    def test_token_vectors_are_not_pooled_by_a_guess(self, monkeypatch):
        # HuggingFaceInferenceAPIEmbedding takes the first token's vector, whatever the model.
        name = "nobody/knows-its-pooling"
        router = FakeRouter(nested=True, models={name: {"hf-inference": name}})
        served = {"provider": "hf-inference", "providerId": name, "status": "live", "task": "feature-extraction"}
        with router, FakeHub({name: HubModel(providers=[served])}) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            keyed = Target("hf", url=router.url, credential="hf_test")
            embedding = HFGatewayEmbedding(model_name=name, targets=[keyed])
            with pytest.raises(errors.BadResponse, match="how the model pools them is not known"):
                embedding.get_text_embedding("foo")

    def test_nothing_is_printed(self, tei, capfd):
        # HuggingFaceInferenceAPIEmbedding prints its model's name.
        through(tei).get_text_embedding_batch(["foo", "bar"])
        assert capfd.readouterr() == ("", "")

    def test_the_constructor_loads_no_model(self):
        # HuggingFaceEmbedding loads in __init__, and needs torch even for ONNX.
        script = (
            "import sys; from llamaindex_hf_gateway import HFGatewayEmbedding; HFGatewayEmbedding(model_name='all-MiniLM-L6-v2');"
            "print({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"


class TestErrors:
    @HOW
    async def test_an_error_of_the_server_is_not_an_embedding(self, how, tei):
        # The TEI integration: KeyError: 0 for one text, and a ValidationError of an event for a batch.
        tei.always(overloaded(), "/embed")
        with pytest.raises(errors.RateLimited):
            await embed(through(tei), how, ["foo", "bar"])

    def test_an_error_for_a_single_text_is_none_either(self, tei):
        tei.always(overloaded(), "/embed")
        for call in (through(tei).get_query_embedding, through(tei).get_text_embedding):
            with pytest.raises(errors.RateLimited):
                call("foo")

    def test_what_is_the_callers_fault_is_not_tried_again(self, tei):
        # HuggingFaceEmbedding tries three times, whatever it was, with seconds in between.
        tei.always(error("Empty", "`inputs` cannot be empty"), "/embed")
        with pytest.raises(errors.InvalidRequest):
            through(tei, max_retries=3).get_text_embedding("foo")
        assert tei.count("/embed") == 1

    def test_a_server_of_another_model_is_refused(self):
        # llama_index#17836: "you (the user) have to ensure that", and with equal dimensions nobody is told.
        with FakeTEI(model_id="BAAI/bge-small-en-v1.5") as tei:
            with pytest.raises(errors.SpaceMismatch, match="serves BAAI/bge-small"):
                through(tei, model_name=MINILM).get_text_embedding("foo")
            assert tei.count("/embed") == 0

    def test_an_unknown_argument_is_an_error_that_names_the_nearest(self):
        # HuggingFaceEmbedding passes them on to SentenceTransformer, num_workers and embeddings_cache too.
        with pytest.raises(errors.ConfigError, match="no argument 'modle_name'; did you mean 'model_name'"):
            HFGatewayEmbedding(modle_name=MINILM)


class TestWritten:
    @pytest.mark.parametrize(
        "change",
        [
            {"model_name": "BAAI/bge-small-en-v1.5"},
            {"revision": "v2"},
            {"dimensions": 64},
            {"normalize": True},
            {"truncate": True},
            {"query_prompt": "query: "},
            {"document_prompt": "passage: "},
            {"targets": ["hash:64"]},
            {"targets": [f"local:{MINILM}@v2"]},
            {"targets": [Target("local", options={"dtype": "bfloat16"})]},
            {"targets": [Target("local", space=VectorSpace(MINILM, pooling="cls"))]},
        ],
        ids=str,
    )
    def test_what_changes_vectors_changes_the_pipelines_hash(self, change):
        # HuggingFaceEmbedding has the same hash with truncate_dim=64 and without.
        plain = {"model_name": MINILM, "targets": ["local"]}
        hashes = [
            get_transformation_hash(nodes(), HFGatewayEmbedding(**{**plain, **more})) for more in ({}, {}, change)
        ]
        assert hashes[0] == hashes[1] != hashes[2]

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("local", {"device": "cpu", "batch_size": 8}),
            ("openai", {"encoding": "base64", "max_texts": 8}),
            ("ollama", {"keep_alive": "1h"}),
            ("hf", {"bill_to": "my-company"}),
            ("endpoint", {"access": "public"}),
        ],
    )
    def test_what_does_not_change_vectors_does_not_change_the_dict(self, kind, options):
        # HuggingFaceInferenceAPIEmbedding and others: a new token or timeout, and everything is embedded again.
        url = None if kind in ("local", "hf") else "http://127.0.0.1:1"
        plain = HFGatewayEmbedding(model_name=MINILM, targets=[Target(kind, url=url)])
        times = {"timeout": 7, "attempt_timeout": 6, "connect_timeout": 5}
        fields = {**times, "max_retries": 4, "max_concurrency": 3, "api_key": "of_my_own"}
        tuned = HFGatewayEmbedding(model_name=MINILM, targets=[Target(kind, url=url, options=options)], **fields)
        assert tuned.to_dict() == plain.to_dict()

    @pytest.mark.parametrize("shown", ["to_dict", "to_json", "to_payload", "__repr__", "__getstate__", "pickle"])
    def test_a_key_is_never_shown(self, shown):
        # to_dict of HuggingFaceInferenceAPIEmbedding, TEI and Ollama: token, auth_token, headers (llama_index#12853).
        bound = Target("tei", url="http://127.0.0.1:1", credential=f"tei_{KEY}")
        embedding = HFGatewayEmbedding(model_name=MINILM, targets=["hf", bound], api_key=KEY)
        assert embedding.gateway.status()[0].key_source == "the argument api_key"
        assert KEY not in str(pickle.dumps(embedding) if shown == "pickle" else getattr(embedding, shown)())

    def test_what_the_environment_decided_is_written_down(self, monkeypatch):
        monkeypatch.setenv("HF_GATEWAY_EMBED_MODEL", MINILM)
        monkeypatch.setenv("HF_GATEWAY_EMBED_TARGETS", "hash:64")
        embedding = HFGatewayEmbedding()
        assert (embedding.model_name, embedding.to_payload()["targets"]) == (MINILM, ["hash:64"])
        monkeypatch.setenv("HF_GATEWAY_EMBED_TARGETS", "hash:32")
        rebuilt = [pickle.loads(pickle.dumps(embedding)), HFGatewayEmbedding.from_dict(embedding.to_dict())]
        assert [each.to_dict() for each in rebuilt] == [embedding.to_dict()] * 2

    def test_a_server_whose_model_nobody_named_is_rebuilt_as_it_was(self, tei):
        embedding = through(tei)
        rebuilt = HFGatewayEmbedding.from_dict(embedding.to_dict())
        assert rebuilt.to_dict() == embedding.to_dict()
        assert rebuilt.get_text_embedding("foo") == embedding.get_text_embedding("foo")

    def test_what_cannot_be_rebuilt_says_why(self, monkeypatch):
        # llama_index#13497: half an object comes out of the pickle, and later it has no attribute '_model'.
        data = pickle.dumps(HFGatewayEmbedding(targets=["hash"]))
        monkeypatch.setenv("HF_GATEWAY_CONFIG", "is-not-here.toml")
        with pytest.raises(errors.ConfigError, match="no such file"):
            pickle.loads(data)

    def test_from_config_and_from_gateway_build_the_same(self, tei):
        Path("hf-gateway.toml").write_text(f'[chains.docs]\nmodel = "{MINILM}"\ntargets = ["tei:{tei.url}"]\n')
        gateway = Gateway.from_config("docs", dimensions=8)
        read = HFGatewayEmbedding.from_config("docs", dimensions=8)
        given = HFGatewayEmbedding.from_gateway(gateway, embed_batch_size=3)
        assert (given.gateway, given.embed_batch_size) == (gateway, 3)
        assert given.to_dict() == read.to_dict()
        assert given.get_text_embedding("foo") == read.get_text_embedding("foo")

    def test_the_entry_point_leads_to_the_class(self):
        (entry,) = entry_points(group="llama_index.embeddings", name="hf_gateway")
        assert entry.load() is HFGatewayEmbedding


class TestPipelines:
    @pytest.mark.parametrize("kind", ["local", "tei"])
    def test_a_pipeline_may_use_several_processes(self, kind, tei):
        # HuggingFaceEmbedding does not survive the pickle.
        target = "local" if kind == "local" else f"tei:{tei.url}"
        pipeline = IngestionPipeline(transformations=[HFGatewayEmbedding(model_name=MINILM, targets=[target])])
        made = pipeline.run(nodes=nodes(), num_workers=2)
        assert [node.get_content() for node in made] == [f"text {i}" for i in range(4)]
        assert [len(node.embedding) for node in made] == [384] * 4
        assert tei.connections == (0 if kind == "local" else 2)

    def test_the_second_run_of_a_pipeline_asks_nobody(self, tei):
        cache = IngestionCache()

        def requests_for(**fields: Any) -> int:
            before = tei.count()
            IngestionPipeline(transformations=[through(tei, **fields)], cache=cache).run(nodes=nodes())
            return tei.count() - before

        assert requests_for() == 2  # its limits, and the vectors
        assert requests_for(timeout=7, embed_batch_size=2) == 0
        assert requests_for(document_prompt="passage: ") == 2

    def test_a_cache_keeps_queries_apart_from_documents(self, tei):
        # LlamaIndex's own caching is by the text alone (run-llama/llama_index PR 23181).
        embedding = through(tei, query_prompt="query: ", document_prompt="passage: ", embeddings_cache=SimpleKVStore())
        embedding.get_text_embedding("foo")
        assert close([embedding.get_query_embedding("foo")], unit_vectors(["query: foo"]))

    def test_a_cache_that_two_models_share_keeps_their_vectors_apart(self, tei):
        store = SimpleKVStore()
        through(tei, embeddings_cache=store).get_text_embedding("foo")
        other = HFGatewayEmbedding(targets=["hash:64"], embeddings_cache=store)
        assert len(other.get_text_embedding("foo")) == 64

    def test_as_a_setting_it_needs_no_key_of_openai(self, tei, monkeypatch):
        # llama_index#10051 and its like: "No API key found for OpenAI", with an embedder of one's own.
        monkeypatch.setattr(Settings, "_embed_model", None)
        Settings.embed_model = through(tei)
        index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS])
        assert index.as_retriever(similarity_top_k=1).retrieve(TEXTS[0])[0].get_content() == TEXTS[0]


class TestAsync:
    async def test_a_hundred_batches_of_one_text_at_once_share_four_requests(self, tei):
        embedding = through(tei, embed_batch_size=1)
        await embedding.aget_text_embedding("first, so that the limits are known")
        gates, before = Gates(), tei.count("/embed")
        tei.always(gates, "/embed")
        batches = asyncio.create_task(embedding.aget_text_embedding_batch([f"text {i}" for i in range(100)]))
        await asyncio.to_thread(gates.wait_for, 4)
        gates.open()
        assert len(await batches) == 100
        assert sorted(len(request.json["inputs"]) for request in gates.arrived) == [4, 32, 32, 32]
        assert tei.count("/embed") == before + 4

    async def test_a_hundred_batches_at_once_start_with_one_and_are_at_most_sixteen_at_the_server(self, tei):
        # aget_text_embedding_batch gathers all batches at once, and no integration bounds them.
        embedding, other = through(tei, embed_batch_size=2), HFGatewayEmbedding(targets=[f"openai:{tei.url}"])
        await embedding.aget_text_embedding("first, so that the limits are known")
        gates = Gates()
        tei.always(gates, "/embed")
        batches = asyncio.create_task(embedding.aget_text_embedding_batch([f"text {i}" for i in range(200)]))
        await asyncio.to_thread(gates.wait_for, 1)
        # Whatever else was on its way would have been there before the answers to these.
        for _ in range(5):
            await other.aget_text_embedding("foo")
        assert gates.peak == 1
        for arrived in range(1, 101):
            await asyncio.to_thread(gates.wait_for, arrived)
            gates.let()
        assert len(await batches) == 200
        assert gates.peak <= 16

    async def test_loading_the_model_does_not_block_the_event_loop(self):
        # The option makes it another engine than the one that other tests keep in memory.
        embedding = HFGatewayEmbedding(model_name=MINILM, targets=[Target("local", options={"batch_size": 7})])
        with blockbuster_ctx():
            assert len(await embedding.aget_text_embedding("foo")) == 384

    def test_the_first_call_of_a_process_imports_nothing_on_the_event_loop(self, tei):
        script = (
            "import asyncio\n"
            "from blockbuster import blockbuster_ctx\n"
            "from llamaindex_hf_gateway import HFGatewayEmbedding\n"
            "async def main():\n"
            f"    embedding = HFGatewayEmbedding(targets=['tei:{tei.url}'])\n"
            "    with blockbuster_ctx():\n"
            "        print(len(await embedding.aget_text_embedding('foo')))\n"
            "asyncio.run(main())\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (done.stdout.strip(), done.returncode) == ("384", 0), done.stderr

    async def test_looking_for_a_login_does_not_block_the_event_loop(self, monkeypatch, tmp_path):
        (tmp_path / "token").write_text(KEY)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        with FakeHub({MINILM: HubModel(providers=[])}) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            embedding = HFGatewayEmbedding(model_name=MINILM, targets=[Target("hf", space=VectorSpace(MINILM))])
            with blockbuster_ctx(), pytest.raises(errors.ModelNotFound, match="no provider serves"):
                await embedding.aget_text_embedding("foo")
