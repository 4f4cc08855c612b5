"""HFGatewayEmbeddings beyond LangChain's standard tests; a comment names the fault elsewhere that a test stands against."""

import asyncio
import importlib.metadata
import pickle
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from pydantic import ValidationError

from hf_gateway import Gateway, Target, errors
from hf_gateway.errors import ConfigError, GatewayError
from hf_gateway.testing import ManualClock
from tests.servers import unit_vectors
from tests.servers.loopback import Fault, Loopback, Reply, dead_url, hang, html
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import MINILM, FakeHub, FakeRouter, rate_limited
from tests.servers.tei import FakeTEI, error, overloaded
from tests.support.backends import model_folder
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain.embeddings import init_embeddings
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_core import exceptions as langchain
    from langchain_core.documents import Document
    from langchain_core.load import dumps
    from langchain_core.stores import InMemoryByteStore
    from langchain_core.vectorstores import InMemoryVectorStore

    from langchain_hf_gateway import HFGatewayEmbeddings, register, with_text
    from langchain_hf_gateway.errors import as_model_error


KEY = "hf_dontShowThisToAnybody"
TOO_LONG = "`inputs` must have less than 9 tokens. Given: 12"


@pytest.fixture
def tei():
    with FakeTEI() as server:
        yield server


@pytest.fixture
def hub(monkeypatch):
    with FakeHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="module")
def local():
    return HFGatewayEmbeddings(model="all-MiniLM-L6-v2")


def through(server: Loopback, kind: str = "tei", **arguments: Any) -> "HFGatewayEmbeddings":
    return HFGatewayEmbeddings(targets=[f"{kind}:{server.url}"], **{"max_retries": 0, **arguments})


def sent_texts(server: Loopback) -> list[list[str]]:
    return [request.json["inputs"] for request in server.requests if request.method == "POST"]


class TestRequests:
    @pytest.mark.parametrize("kind", ["tei", "openai", "endpoint"])
    def test_a_url_is_accepted(self, kind):
        # HuggingFaceEndpointEmbeddings(model=url): ValidationError (langchain-ai/docs#4364).
        with FakeOpenAI(models=None) if kind == "openai" else FakeTEI() as server:
            assert through(server, kind).embed_query("foo") == pytest.approx(unit_vectors(["foo"])[0], abs=1e-6)

    def test_a_hundred_texts_are_cut_to_the_servers_limit_and_stay_in_order(self, tei):
        # langchain-huggingface sends all at once: 413 and 422 (langchain#16443, text-embeddings-inference#378).
        texts = [f"text {i}" for i in range(100)]
        vectors = through(tei).embed_documents(texts)
        assert sorted(map(len, sent_texts(tei))) == [4, 32, 32, 32]
        assert all(got == pytest.approx(want, abs=1e-6) for got, want in zip(vectors, unit_vectors(texts), strict=True))

    @pytest.mark.parametrize("text", ["one\ntwo", "  around  ", "tab\there\r\n", "ﬁne ½ ", "naïve 中文 🤗"])
    def test_a_text_reaches_the_server_as_it_is(self, tei, text):
        # langchain-huggingface puts a blank for every newline.
        embeddings = through(tei)
        embeddings.embed_documents([text])
        embeddings.embed_query(text)
        assert sent_texts(tei) == [[text], [text]]

    def test_a_query_gets_another_prompt_than_a_document(self, tei):
        # HuggingFaceEndpointEmbeddings.embed_query is embed_documents.
        embeddings = through(tei, query_prompt="query: ", document_prompt="passage: ")
        assert embeddings.embed_query("foo") != embeddings.embed_documents(["foo"])[0]
        assert sent_texts(tei) == [["query: foo"], ["passage: foo"]]

    def test_the_models_own_saved_prompts_are_used_and_can_be_switched_off(self, tei, tmp_path):
        model = model_folder(tmp_path / "model", {"query": "search: ", "passage": ""})
        through(tei, model=model).embed_query("foo")
        through(tei, model=model).embed_documents(["foo"])
        through(tei, model=model, query_prompt="").embed_query("foo")
        assert sent_texts(tei) == [["search: foo"], ["foo"], ["foo"]]

    def test_the_pipeline_is_called_by_its_name(self, hub):
        # litellm takes "sentence-transformers" in the name for sentence-similarity, and sends the first text as its source.
        with FakeRouter() as router:
            keyed = Target("hf", url=router.url, credential="hf_test")
            HFGatewayEmbeddings(model=MINILM, targets=[keyed]).embed_documents(["foo", "bar"])
            assert router.requests[0].path == f"/hf-inference/models/{MINILM}/pipeline/feature-extraction"
            assert router.requests[0].json["inputs"] == ["foo", "bar"]

    def test_a_failure_that_may_pass_is_tried_again_once(self, tei):
        # HuggingFaceEndpointEmbeddings has no retry.
        embeddings = HFGatewayEmbeddings.from_gateway(Gateway(targets=[f"tei:{tei.url}"], clock=ManualClock()))
        tei.fail(Reply(503, "busy"), path="/embed")
        assert len(embeddings.embed_query("foo")) == 384
        assert tei.count("/embed") == 2

    def test_no_server_needs_the_hub(self, tei, hub):
        # A local TGI or TEI asked the Hub for its model (langchain#24571); litellm asks it for the task.
        embeddings = through(tei, model=MINILM)
        embeddings.embed_documents(["foo"])
        assert hub.count() == 0

    def test_a_server_needs_no_model_named(self, tei):
        # haystack#7087: a local server, and still a model to name and to validate.
        assert len(through(tei).embed_query("foo")) == 384

    def test_no_texts_are_no_vectors_and_no_request(self, tei):
        assert through(tei).embed_documents([]) == []
        assert tei.count() == 0


class TestConstructor:
    def test_it_sends_nothing(self, tei, hub):
        # haystack#7279 and others validate over the network in the constructor.
        for target in (f"tei:{tei.url}", f"openai:{tei.url}", f"endpoint:{tei.url}", "local", "hf"):
            HFGatewayEmbeddings(model="nobody/no-such-model", targets=[target])
        assert (tei.count(), hub.count()) == (0, 0)

    def test_it_loads_no_model(self):
        # HuggingFaceEmbeddings loads in __init__.
        script = (
            "import sys; from langchain_hf_gateway import HFGatewayEmbeddings; HFGatewayEmbeddings(model='all-MiniLM-L6-v2');"
            "print({'torch', 'transformers', 'sentence_transformers', 'httpx'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"

    @pytest.mark.parametrize(
        ("wrong", "right"),
        [("time_out", "timeout"), ("modell", "model"), ("normalise", "normalize"), ("apikey", "api_key")],
    )
    def test_an_unknown_argument_is_an_error_that_names_the_nearest(self, wrong, right):
        # langchain-huggingface ignores timeout, max_retries and api_key without a word.
        with pytest.raises(ConfigError, match=f"no argument '{wrong}'; did you mean '{right}'"):
            HFGatewayEmbeddings(targets=["hash"], **{wrong: "x"})

    @pytest.mark.parametrize("field", ["model", "targets", "dimensions", "api_key", "timeout"])
    def test_fields_cannot_be_set_afterwards(self, field):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(HFGatewayEmbeddings(targets=["hash"]), field, None)

    def test_the_model_of_the_environment_is_the_attribute_model(self, monkeypatch):
        monkeypatch.setenv("HF_GATEWAY_EMBED_MODEL", "BAAI/bge-small-en-v1.5")
        monkeypatch.setenv("HF_GATEWAY_EMBED_TARGETS", "hash:64")
        embeddings = HFGatewayEmbeddings()
        assert (embeddings.model, [target.label for target in embeddings.targets]) == (
            "BAAI/bge-small-en-v1.5",
            ["hash:64"],
        )

    def test_from_config_reads_the_chain_and_takes_changes(self, tei):
        Path("hf-gateway.toml").write_text(f'[chains.docs]\ntargets = ["tei:{tei.url}"]\ntimeout = 7\n')
        embeddings = HFGatewayEmbeddings.from_config("docs", dimensions=8)
        assert (embeddings.timeout, len(embeddings.embed_query("foo"))) == (7, 8)

    def test_from_gateway_shares_the_gateway(self):
        gateway = Gateway(targets=["hash:32"], normalize=True)
        embeddings = HFGatewayEmbeddings.from_gateway(gateway)
        assert embeddings.gateway is gateway
        assert (embeddings.normalize, len(embeddings.embed_query("foo"))) == (True, 32)

    def test_the_huggingface_hub_that_is_installed_is_within_our_range(self):
        # langchain-huggingface cannot be installed beside huggingface_hub 2.
        ours = [Requirement(line) for line in importlib.metadata.requires("hf-gateway")]
        hub = next(each for each in ours if each.name.replace("-", "_") == "huggingface_hub" and each.marker is None)
        assert importlib.metadata.version("huggingface_hub") in hub.specifier


class TestKeys:
    def test_a_local_model_needs_no_key(self, local):
        # The case that started this project: "API key required for HuggingFace" for all-MiniLM-L6-v2 in this process.
        assert [status.needs_key for status in local.status()] == ["never"]
        assert len(local.embed_query("foo")) == 384

    def test_the_same_model_hosted_is_refused_before_any_request(self, hub):
        with FakeRouter() as router, pytest.raises(langchain.ModelAuthenticationError) as caught:
            HFGatewayEmbeddings(model=MINILM, targets=[Target("hf", url=router.url)]).embed_query("foo")
        assert (router.count(), hub.count()) == (0, 0)
        assert "run it locally: `targets=['local']`" in str(caught.value)

    @pytest.mark.parametrize("kind", ["tei", "openai", "endpoint", "ollama"])
    def test_a_server_of_ones_own_gets_no_key_of_the_environment(self, kind, monkeypatch):
        # HF_TOKEN: langchain-huggingface by way of huggingface_hub. OPENAI_API_KEY: mem0#6302. A dummy: soliplex#960.
        for name in ("HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "HUGGINGFACE_API_KEY", "OPENAI_API_KEY", "OLLAMA_API_KEY"):
            monkeypatch.setenv(name, KEY)
        servers = {"openai": FakeOpenAI, "ollama": FakeOllama}
        with servers.get(kind, FakeTEI)() as server:
            HFGatewayEmbeddings(model=MINILM, targets=[Target(kind, url=server.url)]).embed_query("foo")
            assert ["authorization" in request.headers for request in server.requests] == [False] * server.count()

    @pytest.mark.parametrize("by", ["credential", "environment", "api_key"])
    def test_a_key_that_is_bound_to_a_server_is_sent_to_it(self, by, monkeypatch):
        # langchain-huggingface drops an explicit token for one's own protected endpoint.
        monkeypatch.setenv("TEI_KEY", "of_my_own")
        credential = {"credential": "of_my_own", "environment": "env:TEI_KEY", "api_key": None}[by]
        key = {"api_key": "of_my_own"} if by == "api_key" else {}
        with FakeTEI(api_key="of_my_own") as server:
            HFGatewayEmbeddings(targets=[Target("tei", url=server.url, credential=credential)], **key).embed_query(
                "foo"
            )
            assert {request.bearer for request in server.requests} == {"of_my_own"}

    def test_a_dedicated_endpoint_gets_the_token(self, monkeypatch):
        # langchain#40447: the token is withheld from *.endpoints.huggingface.cloud.
        monkeypatch.setenv("HF_TOKEN", KEY)
        embeddings = HFGatewayEmbeddings(targets=["endpoint:https://abc.eu-west-1.aws.endpoints.huggingface.cloud"])
        assert [status.key_source for status in embeddings.status()] == ["the environment variable HF_TOKEN"]

    @pytest.mark.parametrize(
        "shown",
        [
            repr,
            str,
            vars,
            lambda embeddings: embeddings.model_dump(),
            lambda embeddings: embeddings.model_dump_json(),
            pickle.dumps,
            lambda embeddings: dumps(embeddings),
        ],
        ids=["repr", "str", "vars", "model_dump", "model_dump_json", "pickle", "LangChain's dumps"],
    )
    def test_a_key_is_never_shown(self, shown):
        # HuggingFaceEndpointEmbeddings prints its token in repr.
        bound = Target("tei", url="http://127.0.0.1:1", credential=f"tei_{KEY}")
        embeddings = HFGatewayEmbeddings(model=MINILM, targets=["hf", bound], api_key=KEY)
        assert embeddings.api_key is not None
        assert KEY not in str(shown(embeddings))

    def test_a_key_is_in_no_exception_even_if_the_server_quotes_it(self):
        with FakeTEI() as server:
            server.always(Reply(401, {"error": f"key {KEY} is not valid"}), "/embed")
            embeddings = HFGatewayEmbeddings(targets=[Target("tei", url=server.url, credential=KEY)])
            with pytest.raises(langchain.ModelAuthenticationError) as caught:
                embeddings.embed_query("foo")
        error: BaseException | None = caught.value
        while error is not None:
            assert KEY not in f"{error} {error!r} {vars(error)}"
            error = error.__cause__ or error.__context__
        assert KEY not in "".join(traceback.format_exception(caught.value))
        assert KEY.encode() not in pickle.dumps(caught.value)


class TestErrors:
    @pytest.mark.parametrize(
        ("fault", "expected", "retryable"),
        [
            pytest.param(fault, expected, retryable, id=name)
            for name, fault, expected, retryable in [
                ("401", Reply(401), "ModelAuthenticationError", False),
                ("402", Reply(402, {"error": "no credits"}), "ModelPermissionDeniedError", False),
                ("403", Reply(403, {"error": "no"}), "ModelPermissionDeniedError", False),
                ("404", Reply(404), "ModelNotFoundError", False),
                ("400", error("Empty", "`inputs` cannot be empty"), "ModelInvalidRequestError", False),
                ("422 too long", error("Validation", TOO_LONG), "ContextOverflowError", False),
                ("429", overloaded(), "ModelRateLimitError", True),
                ("503 loading", Reply(503, {"error": "Loading model"}), "ModelAPIError", True),
                ("503 busy", Reply(503, "busy"), "ModelAPIError", True),
                ("500", Reply(500, "oops"), "ModelAPIError", True),
                ("a proxy's page", html(200), "ModelAPIError", True),
                ("not a number", Reply(200, [[float("nan")]]), "ModelAPIError", True),
            ]
        ],
    )
    async def test_a_failure_is_the_matching_one_of_langchain(self, tei, fault: Fault, expected, retryable):
        tei.always(fault, "/embed")
        for call in (
            lambda: asyncio.to_thread(through(tei).embed_query, "foo"),
            lambda: through(tei).aembed_query("foo"),
        ):
            with pytest.raises(getattr(langchain, expected)) as caught:
                await call()
            assert isinstance(caught.value, GatewayError)
            assert caught.value.is_retryable is retryable

    def test_a_model_that_failed_in_this_process_is_not_worth_a_retry(self):
        assert not as_model_error(errors.EngineFailed("out of memory")).is_retryable
        assert as_model_error(errors.ServerError("out of memory")).is_retryable

    def test_a_server_that_is_not_there_is_a_connection_error(self):
        with pytest.raises(langchain.ModelConnectionError) as caught:
            HFGatewayEmbeddings(targets=[f"tei:{dead_url()}"], max_retries=0).embed_query("foo")
        assert caught.value.is_retryable

    @pytest.mark.parametrize("limit", ["timeout", "attempt_timeout"])
    async def test_a_silent_server_is_given_up_in_time(self, tei, limit):
        # HuggingFaceEndpointEmbeddings waits for ever.
        tei.always(hang(), "/embed")
        embeddings = through(tei, **{limit: 0.2})
        with pytest.raises(langchain.ModelTimeoutError):
            embeddings.embed_query("foo")
        with pytest.raises(langchain.ModelTimeoutError):
            await embeddings.aembed_query("foo")

    def test_a_target_that_rests_after_a_rate_limit_is_still_rate_limited(self, tei):
        gateway = Gateway(targets=[f"tei:{tei.url}"], timeout=5, clock=ManualClock())
        embeddings = HFGatewayEmbeddings.from_gateway(gateway)
        tei.always(rate_limited("60"), "/embed")
        for _ in range(2):
            with pytest.raises(langchain.ModelRateLimitError):
                embeddings.embed_query("foo")
        assert tei.count("/embed") == 1

    def test_a_chain_whose_targets_failed_alike_failed_for_that_reason(self):
        chain = [f"tei:{dead_url()}", f"openai:{dead_url()}"]
        embeddings = HFGatewayEmbeddings(model=MINILM, targets=chain, max_retries=0)
        with pytest.raises(langchain.ModelConnectionError):
            embeddings.embed_query("foo")

    @pytest.mark.parametrize("targets", [1, 2])
    def test_errors_can_be_pickled(self, targets):
        with pytest.raises(GatewayError) as caught:
            HFGatewayEmbeddings(targets=[f"tei:{dead_url()}"] * targets, max_retries=0).embed_query("foo")
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (type(copy), str(copy), copy.attempts) == (type(caught.value), str(caught.value), caught.value.attempts)
        assert isinstance(copy, langchain.ModelConnectionError)

    @pytest.mark.parametrize("texts", ["one text", ["fine", ""], ["fine", None], ["fine", "\ud800"]])
    def test_input_that_is_no_text_is_refused_before_anything_is_sent(self, tei, texts: Any):
        with pytest.raises(langchain.ModelInvalidRequestError):
            through(tei).embed_documents(texts)
        assert tei.count() == 0


class TestAsync:
    async def test_it_is_native_and_needs_no_thread(self, tei):
        # HuggingFaceEmbeddings inherits LangChain's default, which is embed_documents in a thread.
        class Forbidden(ThreadPoolExecutor):
            def submit(self, *_: Any, **__: Any) -> Any:
                raise AssertionError("a thread was asked for")

        embeddings = through(tei)
        await embeddings.aembed_query("the first call reads files in a thread, and the ones after it need none")
        asyncio.get_running_loop().set_default_executor(Forbidden())
        assert (await embeddings.aembed_documents(["foo"]))[0] == await embeddings.aembed_query("foo")

    async def test_forty_queries_at_once_share_two_requests(self, tei):
        embeddings = through(tei)
        await embeddings.aembed_query("first, so that the limits are known")
        before = len(sent_texts(tei))
        queries = [f"query {number}" for number in range(40)]
        found = await asyncio.gather(*map(embeddings.aembed_query, queries))
        # As many as the server takes, and the rest.
        assert sorted(map(len, sent_texts(tei)[before:])) == [8, 32]
        assert all(got == pytest.approx(want, abs=1e-6) for got, want in zip(found, unit_vectors(queries), strict=True))


class TestEcosystem:
    async def test_a_vector_store_finds_what_is_meant(self, local):
        store = InMemoryVectorStore(local)
        store.add_texts(
            ["A try statement handles errors.", "A for loop repeats.", "The yield keyword makes a generator."]
        )
        question = "How do I catch an exception?"
        found = [store.similarity_search(question, k=1), await store.asimilarity_search(question, k=1)]
        assert [documents[0].page_content for documents in found] == ["A try statement handles errors."] * 2

    def test_a_cache_by_the_spaces_id_spares_requests_and_mixes_no_models(self, tei):
        # LangChain's own advice, namespace=embeddings.model, mixes revisions, prompts and dimensions.
        store, texts = InMemoryByteStore(), ["foo", "bar"]

        def cached(**arguments: Any) -> list[list[float]]:
            embeddings = through(tei, model=MINILM, **arguments)
            space = embeddings.space.id
            return CacheBackedEmbeddings.from_bytes_store(
                embeddings, store, namespace=space, key_encoder="blake2b"
            ).embed_documents(texts)

        first = cached()
        assert cached(timeout=7) == first
        assert tei.count("/embed") == 1
        assert len(cached(dimensions=8)[0]) == 8
        assert cached(document_prompt="passage: ") != first
        assert tei.count("/embed") == 3

    def test_pickled_it_answers_the_same(self, tei):
        embeddings = through(tei, model=MINILM, dimensions=16)
        before = embeddings.embed_query("foo")
        assert pickle.loads(pickle.dumps(embeddings)).embed_query("foo") == before

    def test_pickled_it_keeps_the_chain_that_the_environment_gave_it(self, monkeypatch):
        monkeypatch.setenv("HF_GATEWAY_EMBED_TARGETS", "hash:64")
        data = pickle.dumps(HFGatewayEmbeddings())
        monkeypatch.setenv("HF_GATEWAY_EMBED_TARGETS", "hash:32")
        assert len(pickle.loads(data).embed_query("foo")) == 64

    def test_init_embeddings_knows_the_class_once_it_is_registered(self, monkeypatch):
        base = sys.modules["langchain.embeddings.base"]
        monkeypatch.setattr(base, "_BUILTIN_PROVIDERS", dict(base._BUILTIN_PROVIDERS))
        register()
        register()
        embeddings = init_embeddings("hf_gateway:all-MiniLM-L6-v2", dimensions=64)
        assert isinstance(embeddings, HFGatewayEmbeddings)
        assert [target.label for target in embeddings.gateway.targets] == ["local:all-MiniLM-L6-v2"]
        assert embeddings.dimensions == 64

    @pytest.mark.parametrize("change", ["gone", "of another kind"])
    def test_register_says_what_to_do_if_langchain_has_changed(self, change, monkeypatch):
        base = sys.modules["langchain.embeddings.base"]
        if change == "gone":
            monkeypatch.delattr(base, "_BUILTIN_PROVIDERS")
        else:
            monkeypatch.setattr(base, "_BUILTIN_PROVIDERS", ())
        with pytest.raises(
            RuntimeError, match=r"use langchain_hf_gateway\.HFGatewayEmbeddings\(model=\.\.\.\) instead"
        ):
            register()

    def test_the_entry_point_leads_to_the_class(self):
        (entry,) = importlib.metadata.entry_points(group="langchain.embeddings", name="hf_gateway")
        assert entry.load() is HFGatewayEmbeddings


def test_documents_without_text_are_left_out_of_a_store_and_named(tei, caplog):
    pages = [
        Document("A cat purrs."),
        Document("", metadata={"source": "scan.pdf", "page": 7}),
        Document(" \n", id="blank"),
        Document("\t"),
        Document("A dog barks."),
    ]
    store = InMemoryVectorStore.from_documents(with_text(pages), HFGatewayEmbeddings(targets=[f"tei:{tei.url}"]))
    assert sorted(entry["text"] for entry in store.store.values()) == ["A cat purrs.", "A dog barks."]
    (warning,) = [record.getMessage() for record in caplog.records if "no text" in record.getMessage()]
    assert warning == "3 of 5 documents have no text, and are left out: scan.pdf (page 7), blank, document 3"
