"""Caches of vectors: no two spaces and no two roles share an entry, and a cache never gives a wrong vector or an error."""

import asyncio
import hashlib
import logging
import multiprocessing
import os
import pickle
import sqlite3
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import assume, given
from hypothesis import strategies as st

from hf_gateway import Gateway, Target, VectorSpace, errors
from hf_gateway.engines.hashing import MAX_CHARS
from hf_gateway.spaces.fingerprint import CANARIES, Fingerprint, Store
from hf_gateway.storage import vector_stores
from hf_gateway.storage.files import home
from hf_gateway.tasks.embedding import cache
from hf_gateway.tasks.embedding.cache import PAUSE_S, SqliteCache, vector_key, with_checksum, without_checksum
from hf_gateway.testing import ManualClock
from tests.servers import unit_vectors
from tests.servers.openai import FakeOpenAI, error
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_core.stores import InMemoryByteStore


MODEL = "test/embedder"
PATH = "/v1/embeddings"
KEY = "sk-dontShowThisToAnybody"

Strings = st.text(alphabet=st.characters(exclude_categories=()), max_size=12)
"""Any strings, with lone surrogates among them."""
Triples = st.tuples(Strings, Strings, Strings, Strings)
Spaces = st.builds(
    VectorSpace,
    model=st.sampled_from(["a/b", "a/b#1", "A/b"]),
    revision=st.sampled_from([None, "", "main"]),
    dimension=st.sampled_from([None, 8, 16]),
    normalized=st.sampled_from([None, True, False]),
    query_prompt=st.sampled_from([None, "", "q: "]),
    document_prompt=st.sampled_from([None, "", "q: "]),
)


def other_model(texts: Sequence[str]) -> list[list[float]]:
    return unit_vectors([f"another model: {text}" for text in texts])


def rounded(texts: Sequence[str]) -> list[list[float]]:
    """Embed as the right model does on another processor."""
    return [array("f", [round(value, 5) for value in row]).tolist() for row in unit_vectors(texts)]


@pytest.fixture
def server():
    with FakeOpenAI(models=None) as started:
        yield started


@pytest.fixture(params=["sync", "async"])
def embed(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def call(gateway: Gateway, texts: list[str], **how: Any) -> Any:
        return asyncio.run(gateway.aembed(texts, **how)) if request.param == "async" else gateway.embed(texts, **how)

    return call


class Kept:
    """A cache in memory; `failing` is raised instead of anything else."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.failing: Exception | None = None
        self.calls = 0
        self.closed = 0

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        self._called()
        return [self.entries.get(name) for name in keys]

    def set_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        self._called()
        self.entries.update(items)

    def close(self) -> None:
        self.closed += 1

    def _called(self) -> None:
        self.calls += 1
        if self.failing is not None:
            raise self.failing


class Shelf:
    """A store of a framework, which is no cache by itself."""

    def __init__(self) -> None:
        self.kept = Kept()


def adapt_shelf(store: Any) -> Kept | None:
    return store.kept if isinstance(store, Shelf) else None


def through(server: Any, kept: Any = True, **settings: Any) -> Gateway:
    """Build a chain of one server whose space nobody measures."""
    target = f"openai:{server.url}" if isinstance(server, FakeOpenAI) else server
    return Gateway(
        settings.pop("model", MODEL), [target], **{"check_space": False, "max_retries": 0, **settings}, cache=kept
    )


def measured(server: Any, kept: Any = True, **settings: Any) -> Gateway:
    return through(server, kept, **{"check_space": True, **settings})


def asked(server: FakeOpenAI) -> list[str]:
    """Return the texts that a server was asked for, canaries left out."""
    texts = [text for request in server.requests if request.path == PATH for text in request.json["input"]]
    return [text for text in texts if text not in CANARIES]


class TestKeys:
    @given(Triples, Triples)
    def test_different_arguments_never_share_one(self, one, other):
        assert (vector_key(*one) == vector_key(*other)) == (one == other)

    @given(Strings, st.data())
    def test_the_same_characters_cut_at_other_places_are_other_arguments(self, whole, data):
        def cut() -> tuple[str, ...]:
            places = sorted(data.draw(st.lists(st.integers(0, len(whole)), min_size=3, max_size=3)))
            return tuple(whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True))

        one, other = cut(), cut()
        assert (vector_key(*one) == vector_key(*other)) == (one == other)

    @given(Spaces, Spaces, st.sampled_from(["query", "document"]), st.sampled_from(["query", "document"]))
    def test_different_spaces_and_roles_never_share_one(self, one, other, role, other_role):
        assume((one, role) != (other, other_role))
        assert vector_key(one.id, role, "foo") != vector_key(other.id, other_role, "foo")

    def test_a_key_is_letters_and_digits_and_stays_the_same_for_ever(self):
        parts = b"".join(len(part).to_bytes(8, "big") + part for part in (b"a/b#1", b"query", b""))
        assert (
            vector_key("a/b#1", "query", "foo") == hashlib.sha256(b"hf-gateway vector 1" + parts + b"foo").hexdigest()
        )

    @given(st.binary(max_size=40), st.binary(max_size=40), st.text("ab", max_size=2), st.text("ab", max_size=2))
    def test_a_value_opens_under_its_own_key_alone(self, data, other, name, other_name):
        assert without_checksum(name, with_checksum(name, data)) == data
        assume(other_name != name)
        assert without_checksum(other_name, with_checksum(name, data)) is None
        assert without_checksum(name, other) is None

    @pytest.mark.parametrize(
        "change",
        [
            {"model": "test/other"},
            {"revision": "v2"},
            {"dimensions": 8},
            {"normalize": True},
            {"query_prompt": "q: "},
            {"document_prompt": "d: "},
            {"query_prompt": ""},
            {"truncate": True},
            {"on_space_change": "separate", "normalize": True},
        ],
        ids=str,
    )
    def test_whatever_changes_vectors_has_entries_of_its_own(self, change, server):
        kept = Kept()
        for role in ("query", "document"):
            through(server, kept).embed(["foo"], role=role)
        entries = set(kept.entries)
        changed = through(server, kept, **change)
        assert changed.embed(["foo"]).served_by != ("cache",)
        assert changed.embed(["foo"], role="query").served_by != ("cache",)
        assert (len(entries), len(kept.entries)) == (2, 4)

    @pytest.mark.parametrize("change", [{"timeout": 7}, {"max_concurrency": 1}, {"api_key": KEY}], ids=str)
    def test_whatever_changes_no_vector_shares_them(self, change, server):
        kept = Kept()
        through(server, kept).embed(["foo"])
        assert through(server, kept, **change).embed(["foo"]).served_by == ("cache",)

    def test_longer_hashes_cut_would_be_taken_for_shorter_hashes_so_they_are_refused(self):
        with pytest.raises(errors.ConfigError, match="write 'hash:32'"):
            Gateway(targets=["hash:64"], dimensions=32)


class TestCalls:
    def test_without_cache_nothing_is_kept(self, server, embed):
        gateway = through(server, None)
        embed(gateway, ["foo"])
        assert embed(gateway, ["foo"]).served_by == (f"openai:{server.url}",)
        assert gateway.cache is None
        assert not (home() / "vectors.sqlite").exists()

    def test_what_is_there_asks_nobody_and_costs_nothing(self, server, embed):
        first = embed(through(server), ["foo", "bar"])
        gateway = through(server)
        again = embed(gateway, ["bar", "foo"])
        assert server.count(PATH) == 1
        assert again.vectors.tolist() == first.vectors.tolist()[::-1] == unit_vectors(["bar", "foo"])
        assert (again.served_by, again.attempts, again.usage.input_tokens) == (("cache",), (), 0)
        assert (gateway.cache.counts.hits, gateway.cache.counts.misses) == (2, 0)

    def test_only_what_is_missing_is_embedded_each_text_once_and_the_order_is_kept(self, server, embed):
        gateway = through(server)
        embed(gateway, ["b", "d"])
        texts = ["a", "b", "a", "c", "d", "b", "c", "a"]
        result = embed(gateway, texts)
        assert asked(server) == ["b", "d", "a", "c"]
        assert result.vectors.tolist() == unit_vectors(texts)
        assert result.served_by == ("cache", f"openai:{server.url}")
        assert result.usage.input_tokens == embed(through(server, None), ["a", "c"]).usage.input_tokens

    def test_a_query_never_gets_a_documents_vector(self, server, embed):
        gateway = through(server, query_prompt="q: ", document_prompt="d: ")
        embed(gateway, ["foo"])
        assert embed(gateway, ["foo"], role="query").vectors.tolist() == unit_vectors(["q: foo"])
        assert embed(gateway, ["foo"]).vectors.tolist() == unit_vectors(["d: foo"])

    def test_sync_and_async_share_their_entries(self, server):
        gateway = through(server)
        first = gateway.embed(["foo"])
        assert asyncio.run(gateway.aembed(["foo"])).vectors == first.vectors
        assert server.count(PATH) == 1

    def test_no_texts_ask_no_cache(self, server, embed):
        kept = Kept()
        result = embed(through(server, kept), [])
        assert (len(result.vectors), result.served_by, kept.calls) == (0, (), 0)

    def test_bad_texts_are_refused_before_the_cache_is_asked(self, server, embed):
        kept = Kept()
        with pytest.raises(errors.InvalidRequest):
            embed(through(server, kept), ["foo", " "])
        assert kept.calls == 0

    def test_a_job_that_breaks_off_goes_on_where_it_was(self, server, embed, monkeypatch):
        monkeypatch.setattr(cache, "STORE_BATCH_TEXTS", 2)
        texts = ["a", "b", "c", "d", "e"]
        gateway = through(server, max_concurrency=1)

        def until_c(wanted: list[str]) -> list[list[float]]:
            return [[0.0] * 384] if "c" in wanted else unit_vectors(wanted)

        server.embed = until_c
        with pytest.raises(errors.GatewayError):
            embed(gateway, texts)
        server.embed = unit_vectors
        before = len(asked(server))
        assert embed(through(server), texts).vectors.tolist() == unit_vectors(texts)
        assert asked(server)[before:] == ["c", "d", "e"]

    def test_a_text_that_was_cut_is_not_given_to_who_forbids_cutting(self, embed):
        kept, long = Kept(), "x" * (MAX_CHARS + 1)
        embed(through("hash", kept, truncate=True), [long])
        assert embed(through("hash", kept, truncate=True), [long]).served_by == ("cache",)
        with pytest.raises(errors.ContextOverflow):
            embed(through("hash", kept), [long])

    async def test_no_file_is_touched_on_the_event_loop(self, server, tmp_path):
        gateway = measured(server, tmp_path / "kept.sqlite")
        with blockbuster_ctx():
            for _ in range(2):
                await gateway.aembed(["foo"])
            await gateway.aclose()
        assert asked(server) == ["foo"]

    def test_it_is_in_no_identity_and_in_no_pickle_but_as_it_was_given(self, server, tmp_path):
        gateway = through(server, tmp_path / "kept.sqlite")
        assert "cache" not in gateway.settings.model_dump()
        assert "kept.sqlite" not in repr(gateway) + repr(gateway.settings)
        gateway.embed(["foo"])
        rebuilt = pickle.loads(pickle.dumps(gateway))
        assert rebuilt.embed(["foo"]).served_by == ("cache",)
        assert pickle.loads(pickle.dumps(through(server, True))).cache.cache.path == home() / "vectors.sqlite"

    def test_the_config_file_may_name_it(self, server):
        Path("hf-gateway.toml").write_text(f'[chains.docs]\ntargets = ["openai:{server.url}"]\ncache = "kept.sqlite"\n')
        Gateway.from_config("docs").embed(["foo"])
        assert Path("kept.sqlite").is_file()

    @pytest.mark.parametrize(
        "given", [3, b"path", ["path"], {"a": 1}, Kept, object()], ids=lambda given: type(given).__name__
    )
    def test_what_is_no_cache_is_refused_with_what_would_be(self, given):
        with pytest.raises(errors.ConfigError, match="cache is"):
            Gateway(targets=["hash"], cache=given)

    def test_an_entry_point_adapts_the_stores_of_a_framework(self, server, monkeypatch):
        adapters = {"shelves": EntryPoint("shelves", f"{__name__}:adapt_shelf", vector_stores.ADAPTERS)}
        monkeypatch.setattr(
            vector_stores, "installed", lambda group: adapters if group == vector_stores.ADAPTERS else {}
        )
        shelf = Shelf()
        for _ in range(2):
            through(server, shelf).embed(["foo"])
        assert server.count(PATH) == 1
        assert len(shelf.kept.entries) == 1
        with pytest.raises(errors.ConfigError, match="a store of shelves, not InMemoryByteStore"):
            through(server, InMemoryByteStore())

    def test_closing_leaves_a_cache_that_was_handed_in_to_its_owner(self, server):
        kept = Kept()
        with through(server, kept) as gateway:
            gateway.embed(["foo"])
        assert kept.closed == 0
        with through(server) as gateway:
            gateway.embed(["foo"])
        assert not gateway.cache.cache._idle
        assert gateway.embed(["foo"]).served_by == ("cache",)

    async def test_a_file_is_closed_off_the_event_loop(self, server, monkeypatch):
        closed: list[threading.Thread] = []
        monkeypatch.setattr(SqliteCache, "close", lambda self: closed.append(threading.current_thread()))
        async with through(server) as gateway:
            await gateway.aembed(["foo"])
        # Those of other tests may be collected meanwhile, wherever the collector runs.
        assert any(thread is not threading.main_thread() for thread in closed)

    def test_neither_a_text_nor_a_key_is_in_the_file(self, server):
        gateway = through(server, api_key=KEY)
        gateway.embed(["a very secret text"])
        gateway.close()
        data = (home() / "vectors.sqlite").read_bytes()
        assert b"secret" not in data
        assert KEY.encode() not in data
        if sys.platform != "win32":
            assert (home() / "vectors.sqlite").stat().st_mode & 0o077 == 0


SPOILT: dict[str, Callable[[bytes], Any]] = {
    "cut": lambda value: value[:-5],
    "empty": lambda value: b"",
    "a bit": lambda value: bytes([value[0] ^ 1]) + value[1:],
    "in the checksum": lambda value: value[:-1] + bytes([value[-1] ^ 1]),
    "too long": lambda value: value + b"\0\0\0\0",
    "twice": lambda value: value + value,
    "text": lambda value: "vector",
    "number": lambda value: 7,
    "zeros": lambda value: bytes(len(value)),
}


class TestSpoiltEntries:
    @pytest.mark.parametrize("how", SPOILT)
    def test_each_is_one_miss_and_is_put_right(self, how, server, embed):
        kept = Kept()
        embed(through(server, kept), ["foo", "bar"])
        first = next(iter(kept.entries))
        kept.entries[first] = SPOILT[how](kept.entries[first])
        gateway = through(server, kept)
        assert embed(gateway, ["foo", "bar"]).vectors.tolist() == unit_vectors(["foo", "bar"])
        assert asked(server) == ["foo", "bar", "foo"]
        assert (gateway.cache.counts.hits, gateway.cache.counts.spoilt) == (1, 1)
        assert embed(through(server, kept), ["foo", "bar"]).served_by == ("cache",)

    def test_an_entry_under_anothers_key_is_a_miss(self, server):
        kept = Kept()
        through(server, kept).embed(["foo", "bar"])
        one, other = kept.entries
        kept.entries = {one: kept.entries[other], other: kept.entries[one]}
        assert through(server, kept).embed(["foo", "bar"]).vectors.tolist() == unit_vectors(["foo", "bar"])

    @pytest.mark.parametrize("size", [4 * 8, 4 * 384 + 1])
    def test_a_whole_entry_of_the_wrong_size_is_a_miss(self, size, server):
        kept = Kept()
        through(server, kept).embed(["foo", "bar", "baz"])
        first = next(iter(kept.entries))
        kept.entries[first] = with_checksum(first, b"\1" * size)
        gateway = through(server, kept)
        gateway.embed(["bar"])  # now the dimension is known
        assert gateway.embed(["foo", "bar"]).vectors.tolist() == unit_vectors(["foo", "bar"])
        assert gateway.cache.counts.spoilt == 1

    def test_entries_of_two_dimensions_are_all_misses_where_nobody_knows_which_is_right(self, server):
        kept = Kept()
        through(server, kept).embed(["foo", "bar"])
        first = next(iter(kept.entries))
        kept.entries[first] = with_checksum(first, b"\1\2\3\4" * 8)
        assert through(server, kept).embed(["foo", "bar"]).vectors.tolist() == unit_vectors(["foo", "bar"])
        assert asked(server) == ["foo", "bar"] * 2

    def test_new_vectors_of_another_dimension_are_not_mixed_with_kept_ones(self, server, embed):
        kept = Kept()
        embed(through(server, kept), ["foo"])
        server.embed = lambda texts: unit_vectors(texts, 16)
        with pytest.raises(errors.BadResponse, match="16 numbers where this chain gave 384"):
            embed(through(server, kept), ["foo", "bar"])


class TestFailures:
    @pytest.mark.parametrize("failing", [OSError("disk full"), RuntimeError("gone"), ValueError("odd")], ids=repr)
    def test_a_cache_that_fails_is_told_of_once_and_is_a_miss(self, failing, server, embed, caplog):
        kept, clock = Kept(), ManualClock()
        kept.failing = failing
        gateway = through(server, kept, clock=clock)
        for _ in range(3):
            assert embed(gateway, ["foo"]).vectors.tolist() == unit_vectors(["foo"])
            clock.advance(PAUSE_S + 1)
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert warnings == [
            f"the cache Kept failed, so vectors are computed without it: {type(failing).__name__}: {failing}"
        ]
        assert gateway.cache.counts.failures == 3

    def test_it_is_left_alone_for_a_while_and_asked_again(self, server):
        kept, clock = Kept(), ManualClock()
        kept.failing = OSError("gone")
        gateway = through(server, kept, clock=clock)
        gateway.embed(["foo"])
        gateway.embed(["foo"])
        assert kept.calls == 1
        kept.failing = None
        clock.advance(PAUSE_S)
        gateway.embed(["foo"])
        assert gateway.embed(["foo"]).served_by == ("cache",)

    @pytest.mark.parametrize("values", [[], [None, None], None])
    def test_one_that_answers_for_other_keys_has_failed(self, values, server):
        kept = Kept()
        kept.get_many = lambda keys: values
        gateway = through(server, kept)
        assert gateway.embed(["foo"]).vectors.tolist() == unit_vectors(["foo"])
        assert gateway.cache.counts.failures == 1

    @pytest.mark.parametrize("what", ["no database", "a folder", "below a file", "newer", "locked"])
    def test_a_file_that_cannot_be_used_is_no_error(self, what, server, embed, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr(vector_stores, "BUSY_TIMEOUT_S", 0.05)
        path, holder = tmp_path / "kept.sqlite", None
        if what == "no database":
            path.write_bytes(b"not a database" * 500)
        elif what == "a folder":
            path.mkdir()
        elif what == "below a file":
            (tmp_path / "file").touch()
            path = tmp_path / "file" / "kept.sqlite"
        elif what == "newer":
            with sqlite3.connect(path) as newer:
                newer.execute("PRAGMA user_version=99")
            newer.close()
        else:
            SqliteCache(path).set_many([("a", b"b")])
            holder = sqlite3.connect(path, isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
        gateway = through(server, path)
        for _ in range(2):
            assert embed(gateway, ["foo"]).vectors.tolist() == unit_vectors(["foo"])
        assert gateway.cache.counts.failures == 1
        assert sum("the cache" in record.getMessage() for record in caplog.records) == 1
        if holder is not None:
            holder.close()

    def test_a_newer_file_is_left_as_it_is(self, tmp_path):
        path = tmp_path / "kept.sqlite"
        with sqlite3.connect(path) as newer:
            newer.execute("CREATE TABLE theirs (a)")
            newer.execute("PRAGMA user_version=99")
        newer.close()
        with pytest.raises(OSError, match="of version 99, and this hf-gateway knows version 1"):
            SqliteCache(path).set_many([("a", b"b")])
        with sqlite3.connect(path) as newer:
            assert [row[0] for row in newer.execute("SELECT name FROM sqlite_master")] == ["theirs"]
        newer.close()


class TestSeparateSpaces:
    def test_nothing_is_read_before_it_is_known_whose_vectors_are_right(self, server):
        kept = Kept()
        through(server, kept).embed(["foo"])
        chain = Gateway(
            MODEL,
            [f"openai:{server.url}", "hash:64"],
            on_space_change="separate",
            cache=kept,
            check_space=False,
            max_retries=0,
        )
        assert chain.final_space is None
        server.always(error(500, "down", "server_error"))
        assert chain.embed(["foo"]).vectors.dim == 64
        server.recover()
        # Pinned to hashing: the server's entry is there, and is another space's.
        again = chain.embed(["foo", "bar"])
        assert (again.vectors.dim, again.served_by) == (64, ("cache", "hash:64"))
        assert Gateway(targets=["hash:64"], cache=kept, check_space=False).embed(["bar"]).served_by == ("cache",)
        assert through(server, kept).embed(["foo"]).vectors.dim == 384

    def test_targets_of_one_space_are_read_at_once(self):
        kept = Kept()
        Gateway(targets=["hash:64"], cache=kept, check_space=False).embed(["foo"])
        chain = Gateway(
            targets=["hash:64", Target("hash", options={"dim": 64})],
            on_space_change="separate",
            cache=kept,
            check_space=False,
        )
        assert chain.embed(["foo"]).served_by == ("cache",)

    def test_with_refuse_entries_are_read_though_no_target_can_be_reached(self, server):
        kept = Kept()
        through(server, kept).embed(["foo"])
        server.close()
        assert through(f"openai:{server.url}", kept).embed(["foo"]).served_by == ("cache",)


class TestGuard:
    def test_vectors_that_the_guard_refuses_are_never_kept(self, server, embed):
        kept = Kept()
        embed(measured(server, kept), ["foo"])
        before = dict(kept.entries)
        server.embed = other_model
        gateway = measured(server, kept)
        with pytest.raises(errors.GatewayError, match="another vector space"):
            embed(gateway, ["bar"])
        assert kept.entries == before
        assert embed(gateway, ["foo"]).vectors.tolist() == unit_vectors(["foo"])

    def test_a_model_that_was_changed_while_the_chain_lives_is_not_kept_either(self, server, embed):
        kept = Kept()
        gateway = measured(server, kept, canary_every=1)
        embed(gateway, ["foo"])
        before = dict(kept.entries)
        server.embed = other_model
        with pytest.raises(errors.GatewayError, match="the model behind it has changed"):
            embed(gateway, ["bar"])
        assert kept.entries == before

    def test_measured_chains_take_nothing_that_nobody_measured(self, server, embed):
        kept = Kept()
        server.embed = other_model
        embed(through(server, kept), ["foo"])
        server.embed = unit_vectors
        assert embed(measured(server, kept), ["foo"]).vectors.tolist() == unit_vectors(["foo"])

    @pytest.mark.parametrize("there", [unit_vectors, rounded, other_model])
    def test_machines_share_entries_if_their_models_do_the_same(self, there, server, monkeypatch, tmp_path):
        kept, same = Kept(), there is not other_model
        measured(server, kept).embed(["foo"])
        monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "another machine"))
        server.embed = there
        before = len(asked(server))
        gateway = measured(server, kept)
        gateway.embed(["bar"])
        assert gateway.embed(["foo"]).vectors.tolist() == (unit_vectors if same else there)(["foo"])
        assert asked(server)[before:] == (["bar"] if same else ["bar", "foo"])

    def test_a_fingerprint_by_the_models_files_shuts_out_what_a_server_let_in(self, server):
        kept = Kept()
        server.embed = other_model
        living = measured(server, kept)
        living.embed(["foo"])
        _replace_fingerprint(living.space)
        # The living chain was held to the old one, so it neither reads nor writes any more.
        entries = dict(kept.entries)
        living.embed(["foo", "bar"])
        assert kept.entries == entries
        server.embed = unit_vectors
        assert measured(server, kept).embed(["foo"]).vectors.tolist() == unit_vectors(["foo"])

    def test_a_fingerprint_that_says_the_same_changes_nothing(self, server):
        kept = Kept()
        gateway = measured(server, kept)
        gateway.embed(["foo"])
        _replace_fingerprint(gateway.space)
        assert gateway.embed(["foo"]).served_by == measured(server, kept).embed(["foo"]).served_by == ("cache",)

    def test_a_chain_with_the_models_files_waits_for_them_before_it_believes_a_server(self):
        kept = Kept()
        gateway = measured("hash:64", kept)
        gateway.embed(["foo"])
        store = Store()
        files = store.load(gateway.space)
        store.replace(Fingerprint(files.space, "server", "a server", files.rows))
        assert measured("hash:64", kept).embed(["foo"]).served_by == ("hash:64",)
        assert measured("hash:64", kept).embed(["foo"]).served_by == ("cache",)

    def test_a_spoilt_fingerprint_in_the_cache_is_written_anew(self, server):
        kept = Kept()
        measured(server, kept).embed(["foo"])
        place = next(name for name, value in kept.entries.items() if b'"rows"' in value)
        kept.entries[place] = with_checksum(place, b"{}")
        assert measured(server, kept).embed(["foo"]).served_by == ("cache",)
        assert b'"rows"' in kept.entries[place]


def _replace_fingerprint(space: VectorSpace) -> None:
    """Do what another process does that has the model's own files, of the model that `unit_vectors` is."""
    rows = tuple(tuple(row) for row in unit_vectors(CANARIES))
    Store().replace(Fingerprint(space, "files", "local", {"document": rows, "query": rows}))


def _write_many(path: Path, number: int) -> None:
    """Write from four threads at once; what one process writes all read."""
    kept = SqliteCache(path)

    def write(thread: int) -> None:
        for place in range(25):
            names = [f"{number}-{thread}-{place}-{each}" for each in range(4)]
            kept.set_many([(name, name.encode() * 50) for name in names])
            assert kept.get_many(names) == [name.encode() * 50 for name in names]
            kept.set_many([("shared", b"x" * 100)])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))


class TestSqlite:
    def test_values_come_back_in_the_order_of_the_keys(self, tmp_path):
        kept = SqliteCache(tmp_path / "deep" / "kept.sqlite")
        kept.set_many([(str(number), bytes([number % 256])) for number in range(1200)])
        wanted = [str(number) for number in range(1300, -1, -1)]
        assert kept.get_many(wanted) == [None] * 101 + [bytes([number % 256]) for number in range(1199, -1, -1)]
        assert kept.get_many([]) == []

    def test_a_value_is_written_over_what_was_there(self, tmp_path):
        kept = SqliteCache(tmp_path / "kept.sqlite")
        kept.set_many([("a", b"1")])
        kept.set_many([("a", b"2"), ("a", b"3")])
        assert kept.get_many(["a"]) == [b"3"]

    def test_all_is_kept_or_nothing(self, tmp_path):
        kept = SqliteCache(tmp_path / "kept.sqlite")
        with pytest.raises(sqlite3.Error):
            kept.set_many([("a", b"1"), ("b", None)])
        assert kept.get_many(["a", "b"]) == [None, None]

    def test_six_processes_of_four_threads_lose_nothing(self, tmp_path):
        path = tmp_path / "kept.sqlite"
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=_write_many, args=(path, number)) for number in range(6)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * 6
        names = [
            f"{number}-{thread}-{place}-{each}"
            for number in range(6)
            for thread in range(4)
            for place in range(25)
            for each in range(4)
        ]
        assert SqliteCache(path).get_many([*names, "shared"]) == [*(name.encode() * 50 for name in names), b"x" * 100]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
    def test_a_forked_child_opens_connections_of_its_own(self, tmp_path):
        kept = SqliteCache(tmp_path / "kept.sqlite")
        kept.set_many([("parent", b"1")])
        (inherited,) = kept._idle
        child = os.fork()
        if child == 0:
            try:
                kept.set_many([("child", b"2")])
                os._exit(0 if kept.get_many(["parent"]) == [b"1"] and inherited not in kept._idle else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        kept.set_many([("parent again", b"3")])
        assert kept.get_many(["parent", "child", "parent again"]) == [b"1", b"2", b"3"]

    def test_many_threads_need_few_connections_and_closing_ends_them(self, tmp_path):
        kept = SqliteCache(tmp_path / "kept.sqlite")
        for _ in range(20):
            thread = threading.Thread(target=kept.get_many, args=(["a"],))
            thread.start()
            thread.join()
        assert len(kept._idle) == 1
        kept.close()
        assert len(kept._idle) == 0
        assert kept.get_many(["a"]) == [None]

    def test_the_oldest_go_when_it_is_full(self, tmp_path):
        kept = SqliteCache(tmp_path / "kept.sqlite", max_bytes=200_000)
        for number in range(400):
            kept.set_many([(str(number), bytes(1500))])
        found = [value is not None for value in kept.get_many([str(number) for number in range(400)])]
        assert found == sorted(found)  # what is gone is older than what is there
        assert 50 < sum(found) < 150
        kept.close()
        assert kept.path.stat().st_size < 300_000

    def test_it_is_pickled_as_its_path(self, tmp_path):
        kept = SqliteCache(tmp_path / "kept.sqlite", max_bytes=7)
        kept.get_many(["a"])
        rebuilt = pickle.loads(pickle.dumps(kept))
        assert (rebuilt.path, rebuilt.max_bytes) == (kept.path, 7)

    def test_a_reader_does_not_wait_for_a_writer(self, tmp_path):
        kept = SqliteCache(tmp_path / "kept.sqlite")
        kept.set_many([("a", b"1")])
        writer = sqlite3.connect(kept.path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert kept.get_many(["a"]) == [b"1"]
        assert time.monotonic() - began < vector_stores.BUSY_TIMEOUT_S / 2
        writer.close()


def test_chains_that_check_nothing_share_no_entries_of_two_servers_under_one_name(server, embed):
    kept = Kept()
    embed(through(server, kept), ["one"])
    with FakeOpenAI(models=None, embed=other_model) as other:
        assert embed(through(other, kept), ["one"]).vectors.tolist() == other_model(["one"])
    assert embed(through(server, kept), ["one"]).cached == 1


def test_queries_prove_their_server_each_time_where_they_are_kept(server):
    gateway = measured(server, Kept())
    gateway.embed(["one"], role="query")
    server.embed = other_model
    with pytest.raises(errors.Quarantined):
        gateway.embed(["two"], role="query")
    assert gateway.embed(["one"], role="query").vectors.tolist() == unit_vectors(["one"])


def test_after_an_upgrade_of_the_model_nothing_of_the_old_one_is_given(server, monkeypatch, tmp_path, embed):
    kept = Kept()
    embed(measured(server, kept), ["one", "two"])
    server.embed = other_model
    with pytest.raises(errors.Quarantined):  # where the old one is remembered, the new one gives nothing
        embed(measured(server, kept), ["three"])
    monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "cleared"))
    gateway = measured(server, kept)
    for texts in (["three"], ["one", "two"]):
        assert embed(gateway, texts).vectors.tolist() == other_model(texts)
