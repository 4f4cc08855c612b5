"""The index lock: an index remembers the space it was made with, and is never opened with another."""

import asyncio
import dataclasses
import json
import multiprocessing
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from blockbuster import blockbuster_ctx

from hf_gateway import Gateway, Target, VectorSpace
from hf_gateway.errors import ConfigError, SpaceMismatch
from hf_gateway.spaces.fingerprint import CANARIES, Fingerprint, Store
from hf_gateway.spaces.index_lock import IndexLock
from hf_gateway.storage.files import interprocess_lock
from hf_gateway.testing import ManualClock
from tests.servers import unit_vectors
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI

MODEL = "test/embedder"
PATH = "/v1/embeddings"
X = VectorSpace("test/x")


def other_model(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors([f"another model: {text}" for text in texts])


def cut_short(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors([text[:400] for text in texts])


def wider(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors(texts, 512)


def embedder(server: FakeOpenAI | None = None, **settings: Any) -> Gateway:
    """A chain over a server, or without one over hashing."""
    targets = settings.pop("targets", None) or [f"openai:{server.url}" if server else "hash"]
    return Gateway(settings.pop("model", MODEL), targets, **{"check_space": False, "max_retries": 0, **settings})


def measured(embed: Callable[[Sequence[str]], list[list[float]]], space: VectorSpace = X, **facts: Any) -> Fingerprint:
    rows = tuple(tuple(row) for row in embed(CANARIES))
    facts = {"authority": "server", "source": "openai:http://there", **facts}
    return Fingerprint(space, rows={"document": rows, "query": rows}, **facts)


def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "space.json").read_text())


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Go on as on another machine, which has measured nothing yet."""
    monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "another-home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture(params=["sync", "async"])
def embed(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def call(gateway: Gateway, texts: list[str]) -> Any:
        return asyncio.run(gateway.aembed(texts)) if request.param == "async" else gateway.embed(texts)

    return call


class TestNames:
    def test_the_first_opening_writes_the_space_and_sends_nothing(self, primary: FakeOpenAI, folder: Path) -> None:
        gateway = embedder(primary, query_prompt="query: ", check_space=True)
        lock = gateway.lock_index(folder)
        assert lock.space == gateway.space
        assert lock == IndexLock.read(folder)
        kept = content(folder)
        assert kept["version"] == 1
        assert kept["space"] == {"model": MODEL, "query_prompt": "query: "}
        assert kept["by"].startswith("hf-gateway 0.")
        assert kept["created"].endswith("+00:00")
        assert kept["fingerprint"] is None
        assert primary.count() == 0

    def test_the_same_space_opens_it_again_from_wherever_it_is_served(
        self, primary: FakeOpenAI, backup: FakeOpenAI, folder: Path
    ) -> None:
        first = embedder(primary).lock_index(folder)
        assert embedder(backup).lock_index(str(folder)) == first

    def test_a_relative_folder_is_the_same_index(self, folder: Path) -> None:
        assert embedder().lock_index("index") == embedder().lock_index(folder)

    @pytest.mark.parametrize(
        ("then", "now", "field"),
        [
            ({"model": "test/a"}, {"model": "test/b"}, "model: 'test/a' and 'test/b'"),
            ({"query_prompt": "query: "}, {"query_prompt": ""}, "query_prompt: 'query: ' and ''"),
            ({"dimensions": 128}, {"dimensions": 64}, "dimension: 128 and 64"),
        ],
    )
    def test_another_space_is_refused_before_anything_is_sent(
        self, primary: FakeOpenAI, folder: Path, then: dict[str, Any], now: dict[str, Any], field: str
    ) -> None:
        embedder(primary, **then).lock_index(folder)
        before = (folder / "space.json").read_bytes()
        with pytest.raises(SpaceMismatch) as caught:
            embedder(primary, **now).lock_index(folder)
        assert primary.count() == 0
        assert (folder / "space.json").read_bytes() == before
        message = str(caught.value)
        for part in (
            str(folder),
            field,
            "Ways out:",
            "rebuild the index into another folder",
            "space.json",
            "adopt=True",
        ):
            assert part in message

    def test_hash_vectors_never_get_into_a_models_index(self, primary: FakeOpenAI, folder: Path) -> None:
        embedder(primary).lock_index(folder)
        with pytest.raises(SpaceMismatch, match="feature-hashing"):
            embedder().lock_index(folder)

    def test_what_nobody_knows_differs_from_nothing_and_is_added_once_it_is_known(
        self, primary: FakeOpenAI, folder: Path
    ) -> None:
        first = embedder(primary).lock_index(folder)
        grown = embedder(primary, query_prompt="q: ", dimensions=128).lock_index(folder)
        assert grown.space == VectorSpace(MODEL, dimension=128, query_prompt="q: ")
        assert (grown.created, grown) == (first.created, IndexLock.read(folder))
        with pytest.raises(SpaceMismatch, match="128 and 64"):
            embedder(primary, dimensions=64).lock_index(folder)

    def test_what_is_known_is_not_taken_away_by_who_knows_less(self, primary: FakeOpenAI, folder: Path) -> None:
        known = embedder(primary, query_prompt="q: ").lock_index(folder)
        before = (folder / "space.json").read_bytes()
        assert embedder(primary).lock_index(folder) == known
        assert (folder / "space.json").read_bytes() == before

    def test_the_dimension_is_added_with_the_first_vector(
        self, primary: FakeOpenAI, folder: Path, embed: Callable[..., Any]
    ) -> None:
        gateway = embedder(primary)
        gateway.lock_index(folder)
        embed(gateway, ["one"])
        assert content(folder)["space"]["dimension"] == 384

    @pytest.mark.parametrize("check_space", [False, True])
    @pytest.mark.parametrize("prompt", ["document_prompt", "query_prompt"])
    def test_a_prompt_added_later_is_another_space_than_an_index_was_made_with(
        self, primary: FakeOpenAI, folder: Path, embed: Callable[..., Any], check_space: bool, prompt: str
    ) -> None:
        made = embedder(primary, check_space=check_space)
        made.lock_index(folder)
        embed(made, ["one"])
        later = embedder(primary, check_space=check_space, **{prompt: "passage: "})
        with pytest.raises(SpaceMismatch):
            later.lock_index(folder) and embed(later, ["two"])
        again = embedder(primary, check_space=check_space)
        again.lock_index(folder)
        embed(again, ["two"])

    def test_vectors_of_another_length_do_not_reach_the_caller(self, folder: Path, embed: Callable[..., Any]) -> None:
        with FakeOpenAI(models=None) as then:
            gateway = embedder(then)
            gateway.lock_index(folder)
            gateway.embed(["one"])
        with FakeOpenAI(models=None, embed=wider) as now:
            gateway = embedder(now)
            gateway.lock_index(folder)
            for _ in range(2):
                with pytest.raises(SpaceMismatch, match="dimension: 384 and 512"):
                    embed(gateway, ["one"])

    def test_what_another_process_has_added_in_the_meantime_holds(
        self, primary: FakeOpenAI, folder: Path, embed: Callable[..., Any]
    ) -> None:
        gateway = embedder(primary)
        gateway.lock_index(folder)
        IndexLock(folder, VectorSpace(MODEL, dimension=512)).write()
        for _ in range(2):
            with pytest.raises(SpaceMismatch, match="512 and 384"):
                embed(gateway, ["one"])

    def test_a_pickled_chain_opens_its_index_and_a_lock_can_be_pickled(self, primary: FakeOpenAI, folder: Path) -> None:
        gateway = embedder(primary)
        lock = gateway.lock_index(folder)
        assert pickle.loads(pickle.dumps(gateway)).lock_index(folder) == lock
        assert pickle.loads(pickle.dumps(lock)) == lock

    def test_locking_again_and_again_does_not_pile_up_checks(self, primary: FakeOpenAI, tmp_path: Path) -> None:
        gateway = embedder(primary)
        for _ in range(3):
            gateway.lock_index(tmp_path / "one")
            gateway.lock_index(tmp_path / "two")
        assert len(gateway.space_binding.locks) == 2

    def test_a_chain_for_chat_has_no_space_to_lock(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match="built for chat"):
            Gateway("m", ["openai:http://127.0.0.1:9"], task="chat").lock_index(folder)
        assert not folder.exists()


class TestVectors:
    """The index is made with one server, and opened where nothing is measured yet, with one that goes by the same name."""

    def made(self, folder: Path, **settings: Any) -> Gateway:
        with FakeOpenAI(models=None) as server:
            gateway = embedder(server, check_space=True, **settings)
            gateway.lock_index(folder)
            gateway.embed(["one"])
        return gateway

    def test_the_fingerprint_is_added_once_it_is_measured(self, folder: Path, embed: Callable[..., Any]) -> None:
        with FakeOpenAI(models=None) as server:
            gateway = embedder(server, check_space=True)
            assert gateway.lock_index(folder).fingerprint is None
            embed(gateway, ["one"])
            assert IndexLock.read(folder).fingerprint == Store().load(gateway.space)

    def test_the_same_vectors_from_another_server_are_fine(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        primary: FakeOpenAI,
        embed: Callable[..., Any],
    ) -> None:
        self.made(folder)
        elsewhere(monkeypatch, tmp_path)
        before = (folder / "space.json").read_bytes()
        gateway = embedder(primary, check_space=True)
        gateway.lock_index(folder)
        assert embed(gateway, ["one"]).vectors.tolist() == unit_vectors(["one"])
        assert (folder / "space.json").read_bytes() == before

    def test_equal_names_and_other_vectors_do_not_reach_the_caller(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, embed: Callable[..., Any]
    ) -> None:
        self.made(folder)
        elsewhere(monkeypatch, tmp_path)
        before = (folder / "space.json").read_bytes()
        with FakeOpenAI(models=None, embed=other_model) as server:
            gateway = embedder(server, check_space=True)
            gateway.lock_index(folder)
            for _ in range(2):
                with pytest.raises(SpaceMismatch) as caught:
                    embed(gateway, ["one"])
        for part in (str(folder), MODEL, "worst cosine: document", "probably another model", server.url, "Ways out:"):
            assert part in str(caught.value)
        assert (folder / "space.json").read_bytes() == before

    def test_where_they_are_measured_already_nothing_is_sent(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        self.made(folder)
        elsewhere(monkeypatch, tmp_path)
        with FakeOpenAI(models=None, embed=other_model) as server:
            embedder(server, check_space=True).embed(["one"])
            sent = server.count()
            with pytest.raises(SpaceMismatch, match="other vectors than would now be used"):
                embedder(server, check_space=True).lock_index(folder)
            assert server.count() == sent

    def test_what_a_person_accepted_opens_the_index_and_nothing_else_does(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, primary: FakeOpenAI
    ) -> None:
        gateway = self.made(folder)
        elsewhere(monkeypatch, tmp_path)
        with FakeOpenAI(models=None, embed=other_model) as server:
            embedder(server, check_space=True).embed(["one"])
            Store().accept(gateway.space, f"openai:{primary.url}", IndexLock.read(folder).fingerprint.rows)
            accepted, other = embedder(primary, check_space=True), embedder(server, check_space=True)
            accepted.lock_index(folder)
            accepted.embed(["one"])
            other.lock_index(folder)
            with pytest.raises(SpaceMismatch, match="probably another model"):
                other.embed(["one"])

    def test_cached_vectors_are_held_to_the_index_too(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, embed: Callable[..., Any]
    ) -> None:
        self.made(folder)
        elsewhere(monkeypatch, tmp_path)
        with FakeOpenAI(models=None, embed=other_model) as server:
            gateway = embedder(server, check_space=True, cache=True)
            gateway.lock_index(folder)
            embedder(server, check_space=True, cache=True).embed(["one"])
            sent = server.count()
            with pytest.raises(SpaceMismatch, match="probably another model"):
                embed(gateway, ["one"])
            assert server.count() == sent

    def test_async_calls_do_not_block_the_event_loop(self, folder: Path, primary: FakeOpenAI) -> None:
        gateway = embedder(primary, check_space=True)
        gateway.lock_index(folder)

        async def main() -> None:
            with blockbuster_ctx(["hf_gateway.spaces.index_lock", "hf_gateway.tasks.embedding.index_guard"]):
                await gateway.aembed(["one"])

        asyncio.run(main())
        assert content(folder)["fingerprint"] is not None

    def test_the_models_own_files_take_the_place_of_a_server_that_nobody_could_check(self, folder: Path) -> None:
        server = measured(unit_vectors, accepted={"openai:odd": measured(other_model).rows})
        files = measured(unit_vectors, authority="files", source="local")
        IndexLock(folder, X, fingerprint=server).write()
        kept = IndexLock(folder, X, fingerprint=files).write().fingerprint
        assert (kept.authority, kept.source, set(kept.accepted)) == ("files", "local", {"openai:odd"})
        assert IndexLock(folder, X, fingerprint=server).write().fingerprint == kept

    @pytest.mark.parametrize(
        ("index", "now", "said"),
        [
            ("server", "files", "the index holds the vectors of something else, so rebuild it"),
            ("files", "server", "it is the server that does something else"),
            ("server", "server", "Neither can be shown"),
        ],
    )
    def test_the_error_says_whose_word_counts(self, folder: Path, index: Any, now: Any, said: str) -> None:
        lock = IndexLock(folder, X, fingerprint=measured(unit_vectors, authority=index))
        with pytest.raises(SpaceMismatch, match=said):
            lock.check(X, measured(other_model, authority=now))
        lock.check(X)

    def test_a_cut_text_counts_only_where_texts_may_be_cut(self, folder: Path) -> None:
        one = measured(unit_vectors)
        cut = tuple(tuple(row) for row in unit_vectors([*CANARIES[:-1], CANARIES[-1][:200]]))
        other = dataclasses.replace(one, rows={"document": cut, "query": cut})
        lock = IndexLock(folder, X, fingerprint=one)
        lock.check(X, other)
        with pytest.raises(SpaceMismatch, match="long texts are cut at another place"):
            lock.check(X, other, cut=True)

    def test_an_index_made_without_a_cut_learns_where_texts_are_cut_from_the_first_that_cuts(
        self, primary: FakeOpenAI, backup: FakeOpenAI, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backup.embed = cut_short
        for number, (server, truncate) in enumerate([(primary, False), (primary, True), (backup, True)]):
            monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / f"home {number}"))
            chain = embedder(server, check_space=True, truncate=truncate)
            chain.lock_index(folder)
            if server is primary:
                chain.embed(["short"])
        with pytest.raises(SpaceMismatch, match="cut at another place"):
            chain.embed([CANARIES[-1]])

    def test_of_two_that_cut_elsewhere_and_fill_a_new_index_at_once_the_first_counts(
        self, primary: FakeOpenAI, backup: FakeOpenAI, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backup.embed = cut_short
        first = embedder(primary, check_space=True, truncate=True)
        first.lock_index(folder)
        elsewhere(monkeypatch, tmp_path)
        second = embedder(backup, check_space=True, truncate=True)
        second.lock_index(folder)
        write, others = IndexLock.write, [first]

        def overtaken(lock: IndexLock, **how: Any) -> IndexLock:
            while others:
                with monkeypatch.context() as there:
                    there.setenv("HF_GATEWAY_HOME", str(tmp_path / "home of the first"))
                    others.pop().embed([CANARIES[-1]])
            return write(lock, **how)

        monkeypatch.setattr(IndexLock, "write", overtaken)
        with pytest.raises(SpaceMismatch, match="cut at another place"):
            second.embed([CANARIES[-1]])


class TestWhileInUse:
    """What happens to the lock after it was taken: nothing leaves a call before the verdict, in any form."""

    FORMS: ClassVar[dict[str, Callable[[Gateway], list[Any]]]] = {
        "embed": lambda gateway: gateway.embed(["one", "two"]).vectors.tolist(),
        "aembed": lambda gateway: asyncio.run(gateway.aembed(["one", "two"])).vectors.tolist(),
        "embed_stream": lambda gateway: list(gateway.embed_stream(f"text {n}" for n in range(600))),
        "aembed_stream": lambda gateway: asyncio.run(_all(gateway.aembed_stream(f"text {n}" for n in range(600)))),
        "aembed, many at once": lambda gateway: asyncio.run(_many(gateway)),
    }

    @pytest.mark.parametrize("form", FORMS)
    def test_not_one_foreign_vector_is_given_once_another_machine_has_written_its_space(
        self, primary: FakeOpenAI, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str
    ) -> None:
        with FakeOpenAI(models=None, embed=other_model) as impostor:
            one, two = embedder(primary, check_space=True), embedder(impostor, check_space=True)
            one.lock_index(folder)
            monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "home of two"))
            two = embedder(impostor, check_space=True)
            two.lock_index(folder)
            given: list[Any] = []
            two.observe(lambda result: given.append(result))
            one.embed(["the first document"])
            for _ in range(2):
                with pytest.raises(SpaceMismatch, match="other vectors"):
                    given.extend(self.FORMS[form](two))
            assert given == []

    def test_an_index_locked_anew_to_another_space_is_noticed(
        self, primary: FakeOpenAI, folder: Path, embed: Callable[..., Any]
    ) -> None:
        clock = ManualClock()
        gateway = embedder(primary, clock=clock)
        gateway.lock_index(folder)
        embed(gateway, ["one"])
        (folder / "space.json").unlink()
        embedder().lock_index(folder)
        clock.advance(1.0)
        for _ in range(2):
            with pytest.raises(SpaceMismatch, match="feature-hashing"):
                embed(gateway, ["one"])

    def test_a_lock_that_is_gone_with_its_index_is_written_again(
        self, primary: FakeOpenAI, folder: Path, embed: Callable[..., Any]
    ) -> None:
        clock = ManualClock()
        gateway = embedder(primary, clock=clock)
        lock = gateway.lock_index(folder)
        embed(gateway, ["one"])
        shutil.rmtree(folder)
        clock.advance(1.0)
        embed(gateway, ["one"])
        assert IndexLock.read(folder).space.dimension == 384
        assert not lock.space.differences(IndexLock.read(folder).space)
        with pytest.raises(SpaceMismatch):
            embedder().lock_index(folder)

    def test_a_lock_that_is_gone_from_files_of_unknown_origin_is_an_error_with_a_way_out(
        self, primary: FakeOpenAI, folder: Path, embed: Callable[..., Any]
    ) -> None:
        clock = ManualClock()
        gateway = embedder(primary, clock=clock)
        gateway.lock_index(folder)
        embed(gateway, ["one"])
        (folder / "index.faiss").write_bytes(b"vectors")
        (folder / "space.json").unlink()
        clock.advance(1.0)
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"is gone while this process uses the index.*adopt=True"):
                embed(gateway, ["one"])
            clock.advance(1.0)
        gateway.lock_index(folder, adopt=True)
        embed(gateway, ["one"])

    def test_a_lock_that_nothing_has_happened_to_is_not_read_for_every_call(
        self, primary: FakeOpenAI, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway = embedder(primary, clock=ManualClock())
        gateway.lock_index(folder)
        gateway.embed(["one"])
        monkeypatch.setattr(IndexLock, "read", lambda path: pytest.fail("read again"))
        for _ in range(5):
            gateway.embed(["one"])


async def _all(rows: Any) -> list[Any]:
    return [row async for row in rows]


async def _many(gateway: Gateway) -> list[Any]:
    outcomes = await asyncio.gather(*(gateway.aembed([f"text {n}"]) for n in range(20)), return_exceptions=True)
    given = [each for each in outcomes if not isinstance(each, SpaceMismatch)]
    return given or [_raise(outcomes[0])]


def _raise(error: Any) -> None:
    raise error


class TestSeparate:
    """Chains whose targets are of several spaces: what they answer in is known with the first vector and not before."""

    def chain(self, server: FakeOpenAI, *more: Any) -> Gateway:
        return embedder(targets=[f"openai:{server.url}", *(more or ["hash"])], on_space_change="separate")

    def test_a_new_index_is_locked_to_the_space_of_the_first_vector(
        self, primary: FakeOpenAI, folder: Path, embed: Callable[..., Any]
    ) -> None:
        gateway = self.chain(primary)
        assert gateway.lock_index(folder).space is None
        assert not folder.exists()
        primary.fail(Reply(500, "down"), path=PATH)
        embed(gateway, ["one"])
        assert content(folder)["space"]["model"] == "hf-gateway/feature-hashing-v1"
        assert gateway.lock_index(folder).space == gateway.space

    def test_it_is_pinned_to_the_space_of_an_index_that_is_there(
        self, primary: FakeOpenAI, folder: Path, embed: Callable[..., Any]
    ) -> None:
        embedder().lock_index(folder)
        gateway = self.chain(primary)
        assert gateway.lock_index(folder).space.model == "hf-gateway/feature-hashing-v1"
        assert gateway.space.model == "hf-gateway/feature-hashing-v1"
        assert embed(gateway, ["one"]).served_by == ("hash",)
        assert primary.count() == 0

    def test_it_answers_nothing_rather_than_in_another_space(
        self, primary: FakeOpenAI, folder: Path, embed: Callable[..., Any]
    ) -> None:
        embedder(primary).lock_index(folder)
        gateway = self.chain(primary)
        gateway.lock_index(folder)
        primary.fail(Reply(500, "down"), path=PATH)
        with pytest.raises(Exception, match="feature-hashing"):
            embed(gateway, ["one"])

    def test_an_index_of_a_space_that_no_target_has_is_refused(self, primary: FakeOpenAI, folder: Path) -> None:
        embedder(primary, model="test/third").lock_index(folder)
        gateway = self.chain(primary)
        with pytest.raises(SpaceMismatch, match="test/third"):
            gateway.lock_index(folder)
        assert gateway.lock_index(folder.with_name("new")).space is None  # and it is pinned to nothing
        assert primary.count() == 0

    def test_an_index_that_fits_two_targets_of_different_spaces_is_not_guessed_at(
        self, primary: FakeOpenAI, backup: FakeOpenAI, folder: Path, embed: Callable[..., Any]
    ) -> None:
        lock = embedder(primary).lock_index(folder)
        mean, cls = (
            Target("openai", url=server.url, space=VectorSpace(MODEL, pooling=pooling))
            for server, pooling in ((primary, "mean"), (backup, "cls"))
        )
        gateway = embedder(targets=[mean, cls], on_space_change="separate")
        assert gateway.lock_index(folder) == lock
        primary.fail(Reply(500, "down"), path=PATH)
        embed(gateway, ["one"])
        assert content(folder)["space"]["pooling"] == "cls"
        with pytest.raises(SpaceMismatch, match="pooling: 'cls' and 'mean'"):
            embedder(targets=[mean]).lock_index(folder)

    def test_once_pinned_it_is_locked_at_once(self, primary: FakeOpenAI, folder: Path) -> None:
        gateway = self.chain(primary)
        gateway.embed(["one"])
        assert gateway.lock_index(folder).space.model == MODEL
        embedder().lock_index(folder.with_name("hashed"))
        with pytest.raises(SpaceMismatch, match="feature-hashing"):
            gateway.lock_index(folder.with_name("hashed"))

    def test_targets_of_one_space_leave_nothing_to_guess(
        self, primary: FakeOpenAI, backup: FakeOpenAI, folder: Path
    ) -> None:
        gateway = self.chain(primary, Target("openai", url=backup.url, space=VectorSpace(MODEL, pooling="mean")))
        assert gateway.lock_index(folder).space == VectorSpace(MODEL, pooling="mean")

    def test_the_second_of_two_that_fill_a_new_index_is_held_to_the_first_ones_space(
        self, primary: FakeOpenAI, backup: FakeOpenAI, folder: Path, embed: Callable[..., Any]
    ) -> None:
        one, two = self.chain(primary), self.chain(backup)
        one.lock_index(folder)
        two.lock_index(folder)
        backup.fail(Reply(500, "down"), path=PATH)
        one.embed(["one"])
        for _ in range(2):
            with pytest.raises(SpaceMismatch, match="feature-hashing"):
                embed(two, ["one"])

    def test_files_of_unknown_origin_cannot_be_adopted_before_the_space_is_known(
        self, primary: FakeOpenAI, folder: Path
    ) -> None:
        folder.mkdir()
        (folder / "index.faiss").write_bytes(b"vectors")
        gateway = self.chain(primary)
        with pytest.raises(ConfigError, match="decided by the first vector"):
            gateway.lock_index(folder, adopt=True)
        gateway.embed(["one"])
        assert gateway.lock_index(folder, adopt=True).space.model == MODEL


class TestFolders:
    def test_files_without_a_lock_are_adopted_only_on_purpose(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "index.faiss").write_bytes(b"vectors")
        with pytest.raises(ConfigError, match=r"it is unknown which model .* lock_index\(.*adopt=True\)"):
            embedder().lock_index(folder)
        assert [entry.name for entry in folder.iterdir()] == ["index.faiss"]
        lock = embedder().lock_index(folder, adopt=True)
        assert embedder().lock_index(folder) == lock

    def test_texts_with_other_vectors_keep_an_index_from_being_adopted(self, primary: FakeOpenAI, folder: Path) -> None:
        folder.mkdir()
        (folder / "index.faiss").write_bytes(b"vectors")
        texts = ["", "x" * 5000, *(f"text {place}" for place in range(20))]
        theirs = list(zip(texts, other_model(texts), strict=True))
        with pytest.raises(SpaceMismatch, match=r"7 of its texts were embedded again.*Nothing was locked"):
            embedder(primary).lock_index(folder, adopt=True, stored=theirs)
        narrow = list(zip(texts, unit_vectors(texts, 8), strict=True))
        with pytest.raises(SpaceMismatch, match="another dimension"):
            embedder(primary).lock_index(folder, adopt=True, stored=narrow)
        assert IndexLock.read(folder) is None
        own = list(zip(texts, unit_vectors(texts), strict=True))
        assert embedder(primary).lock_index(folder, adopt=True, stored=own) == IndexLock.read(folder)
        assert primary.requests[-1].json["input"] == [f"text {place}" for place in range(7)]

    def test_vectors_that_the_store_scaled_to_length_1_are_the_same(self, primary: FakeOpenAI, folder: Path) -> None:
        folder.mkdir()
        (folder / "index.faiss").write_bytes(b"vectors")
        longer = [("a cat", [2 * number for number in unit_vectors(["a cat"])[0]])]
        with pytest.raises(SpaceMismatch, match="the directions agree"):
            embedder(primary).lock_index(folder, adopt=True, stored=longer)
        primary.embed = lambda texts: [[3 * number for number in row] for row in unit_vectors(texts)]
        embedder(primary).lock_index(folder, adopt=True, stored=[("a cat", unit_vectors(["a cat"])[0])])

    def test_adopting_does_not_get_around_a_lock_that_is_there(self, primary: FakeOpenAI, folder: Path) -> None:
        embedder().lock_index(folder)
        with pytest.raises(SpaceMismatch):
            embedder(primary).lock_index(folder, adopt=True)

    def test_what_a_killed_process_left_behind_is_no_index(self, folder: Path) -> None:
        folder.mkdir()
        (folder / ".space.json.4711.0badcafe").write_bytes(b'{"version": 1, "spa')
        assert embedder().lock_index(folder).space is not None

    def test_a_copied_index_brings_its_lock(self, primary: FakeOpenAI, folder: Path) -> None:
        embedder().lock_index(folder)
        shutil.copytree(folder, folder.with_name("copy"))
        with pytest.raises(SpaceMismatch, match="copy"):
            embedder(primary).lock_index(folder.with_name("copy"))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            '{"version": 1, "space": {"model": "a',
            "[]",
            "null",
            '"text"',
            "\ufffd",
            "{}",
            '{"version": 0, "space": {"model": "a"}, "created": "", "by": "", "fingerprint": null}',
            '{"version": 1, "space": null, "created": "", "by": "", "fingerprint": null}',
            '{"version": 1, "space": {"dimension": 3}, "created": "", "by": "", "fingerprint": null}',
            '{"version": 1, "space": {"model": 5}, "created": "", "by": "", "fingerprint": null}',
            '{"version": 1, "space": {"model": "a", "dimension": "384"}, "created": "", "by": "", "fingerprint": null}',
            '{"version": 1, "space": {"model": "a", "colour": 1}, "created": "", "by": "", "fingerprint": null}',
            '{"version": 1, "space": {"model": "a"}, "created": "", "by": "", "fingerprint": {"version": 1}}',
            '{"version": 1, "space": {"model": "a"}, "created": "", "by": "", "fingerprint": []}',
            '{"version": 1, "space": {"model": "a"}, "created": 5, "by": "", "fingerprint": null}',
            '{"version": 1, "space": {"model": "a"}, "created": "", "by": ""}',
        ],
    )
    def test_a_spoilt_file_is_an_error_that_says_so_and_is_left_as_it_is(self, folder: Path, text: str) -> None:
        folder.mkdir()
        (folder / "space.json").write_text(text)
        for adopt in (False, True):
            with pytest.raises(ConfigError, match=r"space\.json is damaged .* left as it is"):
                embedder().lock_index(folder, adopt=adopt)
        assert (folder / "space.json").read_text() == text

    def test_a_file_that_is_no_text_is_spoilt(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "space.json").write_bytes(b"\xff\xfe\x00\x80")
        with pytest.raises(ConfigError, match="damaged"):
            IndexLock.read(folder)

    def test_a_file_of_a_newer_form_is_not_touched(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "space.json").write_text('{"version": 2, "by": "hf-gateway 9.1", "lanes": []}')
        with pytest.raises(ConfigError, match=r"form 2, written by hf-gateway 9\.1.*pip install -U"):
            embedder().lock_index(folder)
        assert content(folder)["version"] == 2

    def test_a_fingerprint_of_other_canaries_compares_with_nothing(self, folder: Path) -> None:
        embedder().lock_index(folder)
        (folder / "space.json").write_text(json.dumps({**content(folder), "fingerprint": {"version": 99}}))
        assert embedder().lock_index(folder).fingerprint is None

    def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="Not a directory"):
            embedder().lock_index(tmp_path / "file" / "index")

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "store.json").write_text("{}")
        with pytest.raises(ConfigError, match="is a file; an index is locked by the folder it lies in"):
            embedder().lock_index(tmp_path / "store.json")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_may_only_be_read_cannot_be_locked_first_there(self, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o555)
        with pytest.raises(ConfigError, match="make the folder writable"):
            embedder().lock_index(folder)

    def test_an_index_that_may_only_be_read_is_compared_all_the_same(
        self, primary: FakeOpenAI, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = embedder(primary).lock_index(folder)

        def refuse(*_: Any) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(Path, "write_bytes", refuse)
        assert embedder(primary, query_prompt="q: ").lock_index(folder) == known
        with pytest.raises(SpaceMismatch):
            embedder().lock_index(folder)
        with pytest.raises(ConfigError, match="Read-only file system"):
            embedder().lock_index(folder.with_name("new"))

    @pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    @pytest.mark.parametrize("there", [False, True])
    def test_an_interrupted_write_leaves_no_half_file(
        self, primary: FakeOpenAI, folder: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, there: bool
    ) -> None:
        if there:
            embedder(primary).lock_index(folder)
        before = (folder / "space.json").read_bytes() if there else None

        def half(path: Path, data: bytes) -> None:
            with path.open("wb") as file:
                file.write(data[: len(data) // 2])
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", half)
            if there and isinstance(failure, OSError):
                embedder(primary, dimensions=64).lock_index(folder)
            else:
                with pytest.raises((ConfigError, KeyboardInterrupt)):
                    embedder(primary, dimensions=64).lock_index(folder)
        assert [entry.name for entry in folder.iterdir()] == (["space.json"] if there else [])
        assert before is None or (folder / "space.json").read_bytes() == before
        assert embedder(primary, dimensions=64).lock_index(folder).space.dimension == 64

    def test_a_file_system_without_links_is_locked_too(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any) -> None:
            raise PermissionError("no links here")

        monkeypatch.setattr(os, "link", refuse)
        lock = embedder().lock_index(folder)
        assert lock == IndexLock.read(folder)
        assert [entry.name for entry in folder.iterdir()] == ["space.json"]


def _lock(folder: str, home: str, number: int, barrier: Any, told: Any) -> None:
    os.environ["HF_GATEWAY_HOME"] = home
    models = [f"test/model-{number % 2}"] if number >= 0 else [MODEL]
    gateway = Gateway(models[0], ["openai:http://127.0.0.1:9"], check_space=False)
    barrier.wait(60)
    try:
        told.put((models[0], gateway.lock_index(folder).space.model))
    except SpaceMismatch as error:
        told.put((models[0], f"refused: {error}"))


def _extend(folder: str, home: str, number: int, barrier: Any, told: Any) -> None:
    os.environ["HF_GATEWAY_HOME"] = home
    fields: list[dict[str, Any]] = [{"query_prompt": "q: "}, {"document_prompt": "d: "}, {"normalize": True}]
    gateway = Gateway(MODEL, ["openai:http://127.0.0.1:9"], check_space=False, **fields[number % 3])
    barrier.wait(60)
    told.put(gateway.lock_index(folder).space.model)


def _at_once(work: Any, folder: Path) -> list[Any]:
    """Have six processes do something with a folder at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, told = context.Barrier(6), context.Queue()
    arguments = [(str(folder), os.environ["HF_GATEWAY_HOME"], number, barrier, told) for number in range(6)]
    processes = [context.Process(target=work, args=each) for each in arguments]
    for process in processes:
        process.start()
    answers = [told.get(timeout=90) for _ in processes]
    for process in processes:
        process.join(30)
    return answers


class TestProcesses:
    def test_one_waits_for_another_that_is_writing(self, folder: Path) -> None:
        folder.mkdir()
        thread = threading.Thread(target=lambda: embedder().lock_index(folder))
        with interprocess_lock(folder / ".space.json.lock", remove=True):
            thread.start()
            thread.join(0.3)
            waited = thread.is_alive() and not (folder / "space.json").exists()
        thread.join(30)
        assert waited
        assert (folder / "space.json").exists()

    def test_an_index_that_another_begins_to_fill_just_now_is_not_of_unknown_origin(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock = embedder().lock_index(folder)
        (folder / "index.faiss").write_bytes(b"vectors")
        answers = iter([None, lock])
        with monkeypatch.context() as patch:
            patch.setattr(IndexLock, "read", staticmethod(lambda path: next(answers, lock)))
            assert embedder().lock_index(folder) == lock

    def test_of_many_that_lock_a_new_folder_at_once_the_first_wins_and_holds_the_others(self, folder: Path) -> None:
        answers = _at_once(_lock, folder)
        winner = content(folder)["space"]["model"]
        assert sorted(name for name, _ in answers) == ["test/model-0"] * 3 + ["test/model-1"] * 3
        for name, held in answers:
            assert held == winner if name == winner else held.startswith("refused: ")
        assert [entry.name for entry in folder.iterdir()] == ["space.json"]

    def test_what_many_add_at_once_is_all_there(self, folder: Path) -> None:
        assert _at_once(_extend, folder) == [MODEL] * 6
        assert IndexLock.read(folder).space == VectorSpace(
            MODEL, query_prompt="q: ", document_prompt="d: ", normalized=True
        )
        assert [entry.name for entry in folder.iterdir()] == ["space.json"]
