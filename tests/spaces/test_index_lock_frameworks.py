"""The index lock through LangChain and LlamaIndex: stores in folders, opened for real where their packages are installed."""

import asyncio
import importlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from hf_gateway.errors import ConfigError, SpaceMismatch
from hf_gateway.spaces.index_lock import IndexLock
from tests.servers import unit_vectors
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    import pyarrow as pa
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_core.documents import Document
    from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
    from langchain_core.exceptions import ModelError
    from langchain_core.stores import InMemoryByteStore
    from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
    from llama_index.core import Document as Page
    from llama_index.core import MockEmbedding, SummaryIndex, VectorStoreIndex

    from langchain_hf_gateway import HFGatewayEmbeddings, load_faiss, locked, open_chroma, open_lancedb, save_faiss
    from llamaindex_hf_gateway import HFGatewayEmbedding, load_index, persist


MODEL = "test/embedder"
TEXTS = ["a cat", "a dog", "a boat"]


def other_model(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors([f"another model: {text}" for text in texts])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def impostor() -> Iterator[FakeOpenAI]:
    """A server that takes any model's name and has other vectors."""
    with FakeOpenAI(models=None, embed=other_model) as server:
        yield server


def langchain(server: FakeOpenAI, model: str = MODEL, **settings: Any) -> "HFGatewayEmbeddings":
    settings = {"check_space": False, "max_retries": 0, **settings}
    return HFGatewayEmbeddings(model=model, targets=[f"openai:{server.url}"], **settings)


def llamaindex(server: FakeOpenAI, model: str = MODEL, **settings: Any) -> "HFGatewayEmbedding":
    settings = {"check_space": False, "max_retries": 0, **settings}
    return HFGatewayEmbedding(model_name=model, targets=[f"openai:{server.url}"], **settings)


@pytest.mark.parametrize("make", [langchain, llamaindex])
class TestBothClasses:
    def test_lock_index_writes_once_and_compares_ever_after(
        self, primary: FakeOpenAI, folder: Path, make: Callable[..., Any]
    ) -> None:
        lock = make(primary).lock_index(folder)
        assert lock.space.model == MODEL
        assert make(primary).lock_index(str(folder)) == lock
        with pytest.raises(SpaceMismatch, match="test/embedder' and 'test/other"):
            make(primary, "test/other").lock_index(folder)
        assert primary.count() == 0

    def test_an_index_of_one_framework_is_known_to_the_other(
        self, primary: FakeOpenAI, folder: Path, make: Callable[..., Any]
    ) -> None:
        embedder = make(primary, query_prompt="query: ")
        langchain(primary, query_prompt="query: ").lock_index(folder)
        llamaindex(primary, query_prompt="query: ").lock_index(folder)
        assert embedder.lock_index(folder).space == embedder.space

    def test_files_of_unknown_origin_are_adopted_only_on_purpose(
        self, primary: FakeOpenAI, folder: Path, make: Callable[..., Any]
    ) -> None:
        folder.mkdir()
        (folder / "index.faiss").write_bytes(b"vectors")
        with pytest.raises(ConfigError, match="adopt=True"):
            make(primary).lock_index(folder)
        assert make(primary).lock_index(folder, adopt=True) == IndexLock.read(folder)

    def test_a_pickled_embedder_opens_its_index(
        self, primary: FakeOpenAI, folder: Path, make: Callable[..., Any]
    ) -> None:
        embedder = make(primary)
        lock = embedder.lock_index(folder)
        assert pickle.loads(pickle.dumps(embedder)).lock_index(folder) == lock


class TestLangChain:
    def store(self, folder: Path) -> str:
        return str(folder / "store.json")

    def test_a_store_in_a_folder_answers_after_the_check(self, primary: FakeOpenAI, folder: Path) -> None:
        embeddings = locked(folder, langchain(primary))
        InMemoryVectorStore.from_texts(TEXTS, embeddings).dump(self.store(folder))
        again = InMemoryVectorStore.load(self.store(folder), locked(folder, langchain(primary)))
        assert again.similarity_search("a cat", k=1)[0].page_content == "a cat"

    def test_with_another_space_no_query_gets_as_far_as_the_store(self, primary: FakeOpenAI, folder: Path) -> None:
        embeddings = locked(folder, langchain(primary))
        InMemoryVectorStore.from_texts(TEXTS, embeddings).dump(self.store(folder))
        sent = primary.count()
        with pytest.raises(SpaceMismatch, match="rebuild the index into another folder"):
            InMemoryVectorStore.load(self.store(folder), locked(folder, langchain(primary, "test/other")))
        assert primary.count() == sent

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_other_vectors_under_the_same_name_answer_no_query(
        self,
        primary: FakeOpenAI,
        impostor: FakeOpenAI,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        asynchronous: bool,
    ) -> None:
        embeddings = locked(folder, langchain(primary, check_space=True))
        InMemoryVectorStore.from_texts(TEXTS, embeddings).dump(self.store(folder))
        monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "another-machine"))
        again = InMemoryVectorStore.load(self.store(folder), locked(folder, langchain(impostor, check_space=True)))
        with pytest.raises(SpaceMismatch, match="other vectors than would now be used") as caught:
            asyncio.run(again.asimilarity_search("a cat")) if asynchronous else again.similarity_search("a cat")
        assert isinstance(caught.value, ModelError)

    def test_a_cache_before_the_embeddings_does_not_hide_their_space(self, primary: FakeOpenAI, folder: Path) -> None:
        cached = CacheBackedEmbeddings.from_bytes_store(
            langchain(primary), InMemoryByteStore(), key_encoder="blake2b", query_embedding_cache=True
        )
        assert locked(folder, cached) is cached
        assert IndexLock.read(folder).space.model == MODEL

    def test_embeddings_that_know_no_space_are_refused(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="DeterministicFakeEmbedding does not know its vector space"):
            locked(folder, DeterministicFakeEmbedding(size=8))
        assert not folder.exists()


@pytest.fixture
def faiss() -> Any:
    """LangChain's FAISS store."""
    pytest.importorskip("faiss")
    pytest.importorskip("langchain_community")
    return importlib.import_module("langchain_community.vectorstores").FAISS


def load(folder: Path, embeddings: "Embeddings", **arguments: Any) -> "VectorStore":
    return load_faiss(folder, embeddings, allow_dangerous_deserialization=True, **arguments)


class TestFaiss:
    def test_a_saved_store_is_loaded_with_the_same_space_and_no_other(
        self, primary: FakeOpenAI, folder: Path, faiss: Any
    ) -> None:
        save_faiss(faiss.from_texts(TEXTS, langchain(primary)), folder)
        assert sorted(entry.name for entry in folder.iterdir()) == ["index.faiss", "index.pkl", "space.json"]
        found = load(folder, langchain(primary)).similarity_search("a dog", k=1)
        assert found[0].page_content == "a dog"
        sent = primary.count()
        with pytest.raises(SpaceMismatch, match="test/other"):
            load(folder, langchain(primary, "test/other"))
        assert primary.count() == sent

    def test_it_can_be_saved_again_and_not_over_an_index_of_another_space(
        self, primary: FakeOpenAI, folder: Path, faiss: Any
    ) -> None:
        store = faiss.from_texts(TEXTS, langchain(primary))
        save_faiss(store, folder)
        store.add_texts(["a house"])
        save_faiss(store, folder)
        before = (folder / "index.faiss").read_bytes()
        with pytest.raises(SpaceMismatch):
            save_faiss(faiss.from_texts(TEXTS, langchain(primary, "test/other")), folder)
        assert (folder / "index.faiss").read_bytes() == before
        assert len(load(folder, langchain(primary)).similarity_search("a house", k=9)) == 4

    def test_one_that_was_saved_without_a_lock_is_adopted_on_purpose(
        self, primary: FakeOpenAI, impostor: FakeOpenAI, folder: Path, faiss: Any
    ) -> None:
        faiss.from_texts(TEXTS, langchain(primary)).save_local(str(folder))
        with pytest.raises(ConfigError, match="it is unknown which model made that index"):
            load(folder, langchain(primary))
        with pytest.raises(SpaceMismatch, match="3 of its texts were embedded again"):
            load(folder, langchain(impostor), adopt=True)
        assert load(folder, langchain(primary), adopt=True).similarity_search("a cat", k=1)
        assert load(folder, langchain(primary)).similarity_search("a cat", k=1)

    def test_a_folder_without_an_index_is_not_locked(self, primary: FakeOpenAI, folder: Path, faiss: Any) -> None:
        with pytest.raises(FileNotFoundError, match="no index"):
            load(folder, langchain(primary))
        assert not folder.exists()

    def test_a_store_over_a_plain_function_has_no_space(self, primary: FakeOpenAI, folder: Path, faiss: Any) -> None:
        store = faiss.from_texts(TEXTS, langchain(primary))
        store.embedding_function = langchain(primary).embed_query
        with pytest.raises(ConfigError, match="made with a function"):
            save_faiss(store, folder)


if COLLECTED:

    class Kept(InMemoryVectorStore):
        """Keeps its texts in a file of its folder, under the constructor of the store it stands in for."""

        def __init__(self, folder: str, embeddings: Any) -> None:
            super().__init__(embeddings)
            self.file = Path(folder) / "store.json"
            if self.file.exists():
                self.store = InMemoryVectorStore.load(str(self.file), embeddings).store

        def add_texts(self, texts: Any, *arguments: Any, **named: Any) -> list[str]:
            found = super().add_documents([Document(text) for text in texts])
            self.dump(str(self.file))
            return found

    class ChromaStandIn(Kept):
        """langchain-chroma 1.1.0."""

        def __init__(
            self,
            collection_name: str = "langchain",
            embedding_function: "Embeddings | None" = None,
            persist_directory: str | None = None,
            host: str | None = None,
            port: int | None = None,
            headers: dict[str, str] | None = None,
            chroma_cloud_api_key: str | None = None,
            tenant: str | None = None,
            database: str | None = None,
            client_settings: Any = None,
            collection_metadata: dict[str, Any] | None = None,
            collection_configuration: Any = None,
            client: Any = None,
            relevance_score_fn: Callable[[float], float] | None = None,
            create_collection_if_not_exists: bool | None = True,
            *,
            ssl: bool = False,
        ) -> None:
            super().__init__(persist_directory or "", embedding_function)
            self.collection_name = collection_name

        def get(self, *, limit: int, include: list[str]) -> dict[str, Any]:
            found = list(self.store.values())[:limit]
            return {"documents": [each["text"] for each in found], "embeddings": [each["vector"] for each in found]}

    class LanceDBStandIn(Kept):
        """langchain-community 0.4.2; with mode="overwrite" each call of `add_texts` throws away what is there."""

        def __init__(
            self,
            connection: Any | None = None,
            embedding: "Embeddings | None" = None,
            uri: str | None = "lancedb",
            vector_key: str | None = "vector",
            id_key: str | None = "id",
            text_key: str | None = "text",
            table_name: str | None = "vectorstore",
            api_key: str | None = None,
            region: str | None = None,
            mode: str | None = "overwrite",
            table: Any | None = None,
            distance: str | None = "l2",
            reranker: Any | None = None,
            relevance_score_fn: Callable[[float], float] | None = None,
            limit: int = 4,
        ) -> None:
            super().__init__(uri or "", embedding)
            self.mode, self.table_name = mode, table_name

        def get_table(self) -> Any:
            table = pa.Table.from_pylist(list(self.store.values()))
            return SimpleNamespace(head=lambda limit: table.slice(0, limit)) if self.store else None

        def add_texts(self, texts: Any, *arguments: Any, **named: Any) -> list[str]:
            if self.mode == "overwrite":
                self.store.clear()
            return super().add_texts(texts)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(params=["chroma", "lancedb"])
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """How a store is opened; stand-ins where the packages are not installed, which weigh 100 MB and more."""
    if request.param == "chroma":
        try:
            importlib.import_module("langchain_chroma")
        except ImportError:
            stand_in(monkeypatch, "langchain_chroma", Chroma=ChromaStandIn)
        return open_chroma
    try:
        importlib.import_module("lancedb")
        importlib.import_module("langchain_community.vectorstores")
    except ImportError:
        stand_in(monkeypatch, "lancedb")
        stand_in(monkeypatch, "langchain_community")
        stand_in(monkeypatch, "langchain_community.vectorstores", LanceDB=LanceDBStandIn)
    return open_lancedb


class TestStoresThatKeepThemselves:
    def test_a_store_is_opened_again_with_the_same_space_and_no_other(
        self, primary: FakeOpenAI, folder: Path, opener: Callable[..., Any]
    ) -> None:
        store = opener(folder, langchain(primary))
        store.add_texts(TEXTS[:2])
        store.add_texts(TEXTS[2:])
        again = opener(folder, langchain(primary))
        assert sorted(found.page_content for found in again.similarity_search("a boat", k=9)) == sorted(TEXTS)
        sent = primary.count()
        with pytest.raises(SpaceMismatch, match="test/other"):
            opener(folder, langchain(primary, "test/other"))
        assert primary.count() == sent

    def test_the_lock_is_there_before_the_store_is(self, folder: Path, opener: Callable[..., Any]) -> None:
        with pytest.raises(ConfigError, match="does not know its vector space"):
            opener(folder, DeterministicFakeEmbedding(size=8))
        assert not folder.exists()

    def test_files_of_unknown_origin_are_adopted_only_on_purpose(
        self, primary: FakeOpenAI, folder: Path, opener: Callable[..., Any]
    ) -> None:
        opener(folder, langchain(primary)).add_texts(TEXTS)
        (folder / "space.json").unlink()
        with pytest.raises(ConfigError, match="adopt=True"):
            opener(folder, langchain(primary))
        assert opener(folder, langchain(primary), adopt=True).similarity_search("a cat", k=1)

    def test_files_of_another_model_are_not_adopted(
        self, primary: FakeOpenAI, impostor: FakeOpenAI, folder: Path, opener: Callable[..., Any]
    ) -> None:
        opener(folder, langchain(primary)).add_texts(TEXTS)
        (folder / "space.json").unlink()
        with pytest.raises(SpaceMismatch, match=r"3 of its texts were embedded again.*rebuild it into another folder"):
            opener(folder, langchain(impostor), adopt=True)
        assert not (folder / "space.json").exists()

    def test_a_store_without_texts_is_adopted_with_a_warning(
        self, primary: FakeOpenAI, folder: Path, opener: Callable[..., Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        folder.mkdir()
        (folder / "notes.txt").write_text("not a store's")
        opener(folder, langchain(primary), adopt=True)
        assert "no text with its vector was found in it" in caplog.text
        assert IndexLock.read(folder) is not None

    def test_arguments_reach_the_store(self, primary: FakeOpenAI, folder: Path, opener: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="nonsense"):
            opener(folder, langchain(primary), nonsense=1)


@pytest.mark.parametrize(
    ("call", "missing", "line"),
    [
        ("load_faiss('f', None)", "faiss", "pip install langchain-community faiss-cpu"),
        ("load_faiss('f', None)", "langchain_community", "pip install langchain-community faiss-cpu"),
        ("open_chroma('f', None)", "langchain_chroma", "pip install langchain-chroma"),
        ("open_lancedb('f', None)", "lancedb", "pip install langchain-community lancedb"),
    ],
)
def test_a_missing_package_is_named_with_its_pip_line_and_nothing_is_written(
    tmp_path: Path, call: str, missing: str, line: str
) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; import langchain_hf_gateway as door; door.{call}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr.splitlines()[-1].endswith(line)
    assert not (tmp_path / "f").exists()


def test_the_doors_import_no_store_before_one_is_opened() -> None:
    script = (
        "import sys; from langchain_hf_gateway import locked, load_faiss, open_chroma, open_lancedb, save_faiss;"
        "print({'langchain_community', 'faiss', 'langchain_chroma', 'lancedb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class TestLlamaIndex:
    def index(self, embed_model: "HFGatewayEmbedding") -> "VectorStoreIndex":
        return VectorStoreIndex.from_documents([Page(text=text) for text in TEXTS], embed_model=embed_model)

    def test_a_persisted_index_answers_after_the_check(self, primary: FakeOpenAI, folder: Path) -> None:
        persist(self.index(llamaindex(primary)), folder)
        assert json.loads((folder / "space.json").read_text())["space"]["model"] == MODEL
        index = load_index(folder, llamaindex(primary))
        found = index.as_retriever(similarity_top_k=1).retrieve("a dog")
        assert found[0].text == "a dog"

    def test_with_another_space_it_is_refused_before_anything_is_sent(self, primary: FakeOpenAI, folder: Path) -> None:
        persist(self.index(llamaindex(primary)), folder)
        sent = primary.count()
        with pytest.raises(SpaceMismatch, match="rebuild the index into another folder"):
            load_index(folder, llamaindex(primary, "test/other"))
        assert primary.count() == sent

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_other_vectors_under_the_same_name_answer_no_query(
        self,
        primary: FakeOpenAI,
        impostor: FakeOpenAI,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        asynchronous: bool,
    ) -> None:
        persist(self.index(llamaindex(primary, check_space=True)), folder)
        monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "another-machine"))
        retriever = load_index(folder, llamaindex(impostor, check_space=True)).as_retriever()
        with pytest.raises(SpaceMismatch, match="other vectors than would now be used"):
            asyncio.run(retriever.aretrieve("a cat")) if asynchronous else retriever.retrieve("a cat")

    def test_it_can_be_persisted_again_and_not_over_an_index_of_another_space(
        self, primary: FakeOpenAI, folder: Path
    ) -> None:
        persist(self.index(llamaindex(primary)), folder)
        index = load_index(folder, llamaindex(primary))
        index.insert(Page(text="a house"))
        persist(index, folder)
        before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
        with pytest.raises(SpaceMismatch):
            persist(self.index(llamaindex(primary, "test/other")), folder)
        assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before
        assert len(load_index(folder, llamaindex(primary)).docstore.docs) == 4

    def test_one_that_was_persisted_without_a_lock_is_adopted_on_purpose(
        self, primary: FakeOpenAI, impostor: FakeOpenAI, folder: Path
    ) -> None:
        self.index(llamaindex(primary)).storage_context.persist(persist_dir=str(folder))
        with pytest.raises(ConfigError, match="it is unknown which model made that index"):
            load_index(folder, llamaindex(primary))
        with pytest.raises(SpaceMismatch, match="3 of its texts were embedded again"):
            load_index(folder, llamaindex(impostor), adopt=True)
        assert not (folder / "space.json").exists()
        load_index(folder, llamaindex(primary), adopt=True)
        assert load_index(folder, llamaindex(primary)).as_retriever().retrieve("a cat")

    def test_persisting_over_files_of_unknown_origin_compares_what_is_persisted(
        self, primary: FakeOpenAI, impostor: FakeOpenAI, folder: Path
    ) -> None:
        index = self.index(llamaindex(primary))
        index.storage_context.persist(persist_dir=str(folder))
        with pytest.raises(SpaceMismatch, match="3 of its texts were embedded again"):
            persist(index, folder, llamaindex(impostor), adopt=True)
        persist(index, folder, llamaindex(primary), adopt=True)
        assert IndexLock.read(folder) is not None

    def test_several_indexes_share_a_folder_and_its_lock(self, primary: FakeOpenAI, folder: Path) -> None:
        embed_model = llamaindex(primary)
        index = self.index(embed_model)
        index.set_index_id("animals")
        second = VectorStoreIndex([], storage_context=index.storage_context, embed_model=embed_model)
        second.set_index_id("none")
        persist(index, folder)
        assert load_index(folder, llamaindex(primary), index_id="animals").index_id == "animals"

    def test_a_folder_without_an_index_is_not_locked(self, primary: FakeOpenAI, folder: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no index"):
            load_index(folder, llamaindex(primary))
        assert not folder.exists()

    def test_embedding_models_that_know_no_space_are_refused(self, primary: FakeOpenAI, folder: Path) -> None:
        index = VectorStoreIndex.from_documents([Page(text="a cat")], embed_model=MockEmbedding(8))
        with pytest.raises(ConfigError, match="MockEmbedding does not know its vector space"):
            persist(index, folder)
        words = SummaryIndex.from_documents([Page(text="a cat")])
        with pytest.raises(ConfigError, match="an index without an embedding model"):
            persist(words, folder)
        assert not folder.exists()
        persist(words, folder, llamaindex(primary))
        assert (folder / "space.json").exists()


class TestWithoutALock:
    """An index that was saved before it was locked, or never is."""

    def test_saving_first_and_locking_then_is_refused_with_the_right_order(
        self, primary: FakeOpenAI, folder: Path
    ) -> None:
        embeddings = langchain(primary)
        folder.mkdir()
        InMemoryVectorStore.from_texts(TEXTS, embeddings).dump(str(folder / "store.json"))
        with pytest.raises(ConfigError, match=r"adopt=True.*lock_index first, then save_local or persist"):
            embeddings.lock_index(folder)
        embeddings.lock_index(folder, adopt=True)

    def test_llamaindex_opens_one_without_a_lock_only_on_purpose_and_says_so(
        self, primary: FakeOpenAI, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        embed_model = llamaindex(primary)
        index = VectorStoreIndex.from_documents([Page(text=text) for text in TEXTS], embed_model=embed_model)
        index.storage_context.persist(persist_dir=str(folder))
        with pytest.raises(ConfigError, match="adopt=True"):
            load_index(folder, embed_model)
        load_index(folder, embed_model, lock=False)
        assert "is opened without a lock" in caplog.text
        assert IndexLock.read(folder) is None
        load_index(folder, embed_model, adopt=True)
        assert IndexLock.read(folder) is not None

    def test_a_lock_that_is_there_is_never_passed_over(self, primary: FakeOpenAI, folder: Path) -> None:
        embed_model = llamaindex(primary)
        persist(VectorStoreIndex.from_documents([Page(text="a cat")], embed_model=embed_model), folder)
        with pytest.raises(SpaceMismatch):
            load_index(folder, llamaindex(primary, "test/other"), lock=False)

    @pytest.mark.parametrize("lock", [True, False])
    def test_a_faiss_folder_without_a_lock(
        self,
        primary: FakeOpenAI,
        folder: Path,
        lock: bool,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        folder.mkdir()
        (folder / "index.faiss").write_bytes(b"vectors")
        opened: list[Any] = []
        stand_in = type("FAISS", (), {"load_local": staticmethod(lambda *given, **more: opened.append(given))})
        monkeypatch.setattr("langchain_hf_gateway.indexes._store", lambda *names, **more: stand_in)
        if lock:
            with pytest.raises(ConfigError, match="adopt=True"):
                load_faiss(folder, langchain(primary))
        else:
            load_faiss(folder, langchain(primary), lock=False)
            assert "is opened without a lock" in caplog.text
        assert len(opened) == (not lock)
