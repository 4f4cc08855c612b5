"""Copies of a chain are bound as it is: by its first vector, by its index, and by what it and they decide together."""

import asyncio
import copy
import multiprocessing
import pickle
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, errors
from hf_gateway.spaces.index_lock import IndexLock
from tests.servers import unit_vectors
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    from llama_index.core import Document
    from llama_index.core.ingestion import IngestionPipeline

    from langchain_hf_gateway import HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayEmbedding


MODEL = "test/embedder"
PATH = "/v1/embeddings"
DOWN = Reply(500, "down")
HASH = "hf-gateway/feature-hashing-v1"


def other_model(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors([f"another model: {text}" for text in texts])


def pickled(embedder: Any) -> Any:
    return pickle.loads(pickle.dumps(embedder))


DOORS: dict[str, Callable[..., Any]] = {
    "core": lambda **given: Gateway(MODEL, **given),
    "langchain": lambda **given: HFGatewayEmbeddings(model=MODEL, **given),
    "llamaindex": lambda **given: HFGatewayEmbedding(model_name=MODEL, **given),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": pickled,
    "pickle of a pickle": lambda it: pickled(pickled(it)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": lambda it: it.model_copy(),
    "model_copy(deep)": lambda it: it.model_copy(deep=True),
    "model_copy(update)": lambda it: it.model_copy(update={"timeout": 20.0}),
}
CASES = [(door, way) for door in DOORS for way in WAYS if door != "core" or "model_copy" not in way]


@pytest.fixture(params=CASES, ids=" by ".join)
def case(request: pytest.FixtureRequest) -> tuple[Callable[..., Any], Callable[[Any], Any]]:
    door, way = request.param
    return DOORS[door], WAYS[way]


def several(server: FakeOpenAI, **settings: Any) -> dict[str, Any]:
    """Settings of a chain that may answer in two spaces."""
    return {
        "targets": [f"openai:{server.url}", "hash:384"],
        "on_space_change": "separate",
        "max_retries": 0,
        **settings,
    }


def gateway_of(embedder: Any) -> Gateway:
    return embedder if isinstance(embedder, Gateway) else embedder.gateway


def embed(embedder: Any, text: str = "two") -> list[float]:
    """Embed a document, wherever this runs."""
    return gateway_of(embedder).embed([text]).vectors.tolist()[0]


class TestAfterTheFirstVector:
    def test_a_copy_is_pinned_as_its_original(self, primary: FakeOpenAI, case: Any) -> None:
        make, copied = case
        original = make(**several(primary))
        embed(original)
        primary.always(DOWN, path=PATH)
        made = copied(original)
        assert gateway_of(made).space.model == MODEL
        for each in (made, original):
            with pytest.raises(errors.AllTargetsFailed, match="pinned to test/embedder"):
                embed(each)

    def test_a_copy_is_held_to_the_lock_of_its_original(
        self, primary: FakeOpenAI, case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make, copied = case
        original = make(targets=[f"openai:{primary.url}"], check_space=True, max_retries=0)
        original.lock_index(tmp_path / "index")
        embed(original)
        made = copied(original)
        monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "another machine"))
        if gateway_of(made) is gateway_of(original):
            return  # one chain, which is bound already
        primary.embed = other_model
        with pytest.raises((errors.SpaceMismatch, errors.Quarantined)):
            embed(made)

    def test_a_copy_cannot_be_changed_into_another_space(self, primary: FakeOpenAI) -> None:
        for door in ("langchain", "llamaindex"):
            original = DOORS[door](targets=[f"openai:{primary.url}"])
            embed(original)
            with pytest.raises(errors.SpaceMismatch, match="Build a new chain instead of copying one"):
                original.model_copy(update={"targets": ["hash"]})

    def test_a_copy_with_a_prompt_gives_nothing_to_the_index_of_its_original(
        self, primary: FakeOpenAI, tmp_path: Path
    ) -> None:
        original = DOORS["langchain"](targets=[f"openai:{primary.url}"], check_space=True)
        original.lock_index(tmp_path / "index")
        embed(original)
        changed = original.model_copy(update={"document_prompt": "passage: "})
        with pytest.raises((errors.SpaceMismatch, errors.Quarantined)):
            changed.embed_documents(["two"])


class TestBeforeTheFirstVector:
    def test_an_original_and_its_copies_decide_together(self, primary: FakeOpenAI, case: Any) -> None:
        make, copied = case
        original = make(**several(primary))
        made, third = copied(original), copied(original)
        embed(original)
        primary.always(DOWN, path=PATH)
        for each in (made, third, copied(made)):
            with pytest.raises(errors.AllTargetsFailed, match="pinned to test/embedder"):
                embed(each)

    def test_a_copy_may_decide_for_its_original(self, primary: FakeOpenAI) -> None:
        original = DOORS["core"](**several(primary))
        made = pickled(original)
        primary.fail(DOWN, path=PATH)
        embed(made)
        result = original.embed(["two"])  # the server is back, and its answer comes too late
        assert result.served_by == ("hash:384",)
        assert "pinned to hf-gateway/feature-hashing-v1" in str(result.attempts[0].error)
        assert made.space.model == original.space.model == HASH

    def test_an_index_that_was_locked_before_is_locked_for_the_copy(
        self, primary: FakeOpenAI, case: Any, tmp_path: Path
    ) -> None:
        make, copied = case
        original = make(**several(primary))
        original.lock_index(tmp_path / "index")
        made = copied(original)
        embed(made)
        assert IndexLock.read(tmp_path / "index").space.model == MODEL
        primary.always(DOWN, path=PATH)
        with pytest.raises((errors.SpaceMismatch, errors.AllTargetsFailed)):
            embed(original)

    def test_where_nothing_can_be_kept_the_copies_of_a_process_decide_together(
        self, primary: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "file" / "home"))
        original = DOORS["core"](**several(primary))
        made = pickled(original)
        embed(original)
        primary.always(DOWN, path=PATH)
        with pytest.raises(errors.AllTargetsFailed):
            embed(made)


class TestOnAnotherMachine:
    def test_a_copy_without_the_folder_is_held_to_the_lock_that_came_with_it(
        self, primary: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "disk" / "index"
        original = DOORS["core"](targets=[f"openai:{primary.url}"], check_space=True)
        original.lock_index(folder)
        embed(original)
        written = pickle.dumps(original)
        shutil.rmtree(folder.parent)
        monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "another machine"))
        embed(pickle.loads(written))
        assert not folder.parent.exists()
        with FakeOpenAI(models=None, embed=other_model) as impostor:
            stranger = pickle.loads(written.replace(primary.url.encode(), impostor.url.encode()))
            if len(primary.url) == len(impostor.url):
                with pytest.raises((errors.SpaceMismatch, errors.Quarantined)):
                    embed(stranger)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_worker_process_is_bound_as_its_parent(primary: FakeOpenAI, tmp_path: Path, method: str) -> None:
    original = DOORS["langchain"](**several(primary))
    original.lock_index(tmp_path / "index")
    embed(original)
    primary.always(DOWN, path=PATH)
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool,
        pytest.raises(errors.AllTargetsFailed, match="pinned to test/embedder"),
    ):
        pool.submit(embed, original).result(120)


def test_a_child_that_was_forked_before_the_first_vector_decides_together_with_its_parent(primary: FakeOpenAI) -> None:
    original = DOORS["core"](**several(primary))
    context = multiprocessing.get_context("fork")
    go, outcome = context.Event(), context.SimpleQueue()

    def child() -> None:
        go.wait(60)
        try:
            outcome.put(original.embed(["two"]).served_by)
        except errors.GatewayError as error:
            outcome.put(str(error))

    process = context.Process(target=child)
    process.start()
    embed(original)
    primary.always(DOWN, path=PATH)
    go.set()
    assert "pinned to test/embedder" in outcome.get()
    process.join()


def test_workers_of_an_ingestion_pipeline_fill_one_index_with_one_space(primary: FakeOpenAI, tmp_path: Path) -> None:
    embedding = DOORS["llamaindex"](**several(primary))
    embedding.lock_index(tmp_path / "index")
    # The first request of one worker fails, so that it would go on with hash; the other one meets the server.
    primary.fail(DOWN, path=PATH)
    pipeline = IngestionPipeline(transformations=[embedding])
    documents = [Document(text=f"note {number}") for number in range(4)]
    try:
        nodes = pipeline.run(documents=documents, num_workers=2)
    except errors.GatewayError:
        return  # refused, which is right as well: which worker comes first is chance
    server = dict(zip((node.text for node in nodes), unit_vectors([node.text for node in nodes]), strict=True))
    of_server = {pytest.approx(node.embedding, abs=1e-5) == server[node.text] for node in nodes}
    assert len(of_server) == 1


def test_copies_made_async_are_bound_too(primary: FakeOpenAI) -> None:
    original = DOORS["core"](**several(primary))

    async def main() -> None:
        made = copy.deepcopy(original)
        await original.aembed(["one"])
        primary.always(DOWN, path=PATH)
        with pytest.raises(errors.AllTargetsFailed, match="pinned"):
            await made.aembed(["two"])

    asyncio.run(main())
