"""ModelCache: what is kept of models on disk, for how long, by several processes, and whatever happens to the file."""

import concurrent.futures
import contextlib
import json
import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gateway.errors import ConfigError
from hf_gateway.hub import ModelCache, ModelFile, ModelMetadata

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
BERT = ModelMetadata(
    id="google-bert/bert-base",
    author="google-bert",
    sha="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    downloads=12,
    likes=3,
    trending=0.5,
    tags=("bert", "license:apache-2.0"),
    pipeline_tag="fill-mask",
    library_name="transformers",
    license=("apache-2.0",),
    size=440,
    created=NOON - timedelta(days=900),
    modified=NOON - timedelta(days=3),
    files=(ModelFile("config.json", 40), ModelFile("model.safetensors", 400), ModelFile("x", None)),
    card_data={"license": "apache-2.0", "language": ["en"]},
    gated="auto",
    private=True,
    parameters={"F32": 100},
    gguf={"total": 1},
    config={"model_type": "bert", "num_hidden_layers": 12},
    providers=({"provider": "hf-inference", "status": "live", "task": "fill-mask"},),
    cached_at=NOON,
)


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.moment = NOON

    def __call__(self) -> float:
        return self.moment.timestamp()

    def pass_(self, **duration: float) -> None:
        self.moment += timedelta(**duration)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def cache(tmp_path: Path, time: Time) -> ModelCache:
    return ModelCache(tmp_path / "cache", now=time)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        yield database
        database.commit()


def model(name: str, **fields: Any) -> ModelMetadata:
    return ModelMetadata(**{"id": name, "cached_at": NOON, **fields})


# What properties are checked of: names as the Hub has them, and fields as anybody might fill them.
PART = st.text("abcXYZ019_", min_size=1, max_size=12)
NAMES = st.builds(lambda owner, name: f"{owner}/{name}", PART, PART)
MOMENTS = st.integers(-8 * 10**14, 6 * 10**15).map(lambda each: NOON + timedelta(microseconds=each))
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSONS, max_size=3)
METADATA = st.builds(
    ModelMetadata,
    id=NAMES,
    author=st.none() | st.text(max_size=8),
    sha=st.none() | st.text(max_size=8),
    downloads=st.integers(min_value=0),
    likes=st.integers(min_value=0),
    trending=st.none() | st.floats(allow_nan=False),
    tags=st.lists(st.text(max_size=8), max_size=4).map(tuple),
    pipeline_tag=st.none() | st.text(max_size=8),
    library_name=st.none() | st.text(max_size=8),
    license=st.lists(st.text(max_size=8), max_size=2).map(tuple),
    size=st.none() | st.integers(min_value=0),
    created=st.none() | MOMENTS,
    modified=st.none() | MOMENTS,
    files=st.lists(st.builds(ModelFile, st.text(max_size=8), st.none() | st.integers(min_value=0)), max_size=3).map(
        tuple
    ),
    card_data=OBJECTS,
    gated=st.sampled_from([False, "auto", "manual", None]),
    private=st.booleans(),
    disabled=st.booleans(),
    parameters=st.dictionaries(st.text(max_size=4), st.integers(min_value=0), max_size=2),
    gguf=OBJECTS,
    config=OBJECTS,
    providers=st.lists(OBJECTS, max_size=2).map(tuple),
    complete=st.booleans(),
    cached_at=MOMENTS,
)


@given(METADATA)
def test_metadata_survive_the_way_through_json(metadata: ModelMetadata) -> None:
    assert ModelMetadata.from_dict(json.loads(json.dumps(metadata.to_dict()))) == metadata


@settings(max_examples=60, deadline=None)
@given(METADATA)
def test_what_is_set_is_what_another_instance_gets(metadata: ModelMetadata) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ModelCache(folder).set(metadata)
        assert ModelCache(folder).get(metadata.id, ttl_hours=None) == metadata


@settings(max_examples=40, deadline=None)
@given(
    st.floats(min_value=0.01, max_value=1000),
    st.floats(min_value=0, max_value=2000),
)
def test_an_entry_lives_exactly_as_long_as_it_is_to(ttl: float, age: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        time = Time()
        cache = ModelCache(folder, now=time)
        cache.set(BERT)
        time.pass_(hours=age)
        old = time.moment - NOON  # datetimes hold microseconds
        assert (cache.get(BERT.id, ttl) is None) == (old >= timedelta(hours=ttl))
        assert cache.get(BERT.id, None) == BERT


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(NAMES.map(str.lower), st.integers(min_value=0, max_value=9), min_size=1, max_size=6), st.data())
def test_what_is_done_to_one_model_touches_no_other(downloads: dict[str, int], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache = ModelCache(folder)
        for name, count in downloads.items():
            cache.set(model(name, downloads=count))
        gone = data.draw(st.sampled_from(sorted(downloads)))
        changed = data.draw(st.sampled_from(sorted(downloads)))
        cache.set(model(changed, downloads=99))
        assert cache.remove(gone)
        for name, count in downloads.items():
            found = cache.get(name, None)
            expected = None if name == gone else (99 if name == changed else count)
            assert (found.downloads if found else None) == expected
        assert {each.id for each in cache.get_all_cached()} == set(downloads) - {gone}


def test_a_day_is_how_long_an_entry_is_fresh(cache: ModelCache, time: Time) -> None:
    cache.set(BERT)
    time.pass_(hours=23.99)
    assert cache.get(BERT.id) == BERT
    time.pass_(hours=0.02)
    assert cache.get(BERT.id) is None
    assert cache.get(BERT.id, ttl_hours=25) == BERT


@pytest.mark.parametrize(("hours", "expired"), [(0, False), (23.99, False), (24, True), (1000, True), (-1, True)])
def test_metadata_know_whether_they_are_expired(hours: float, expired: bool) -> None:
    assert BERT.is_expired(now=NOON + timedelta(hours=hours)) is expired


def test_a_clock_that_is_set_back_does_not_make_entries_fresh_for_years(cache: ModelCache, time: Time) -> None:
    cache.set(replace(BERT, cached_at=NOON + timedelta(days=3650)))
    assert cache.get(BERT.id) is None


def test_nothing_is_there_before_something_is_set_and_no_file_is_made_by_looking(cache: ModelCache) -> None:
    assert cache.get("a/b") is None
    assert cache.get_all_cached() == cache.search("a") == []
    assert cache.remove("a/b") is False
    assert (cache.clear(), cache.size(), len(cache)) == (0, 0, 0)
    assert not cache.cache_dir.exists()
    assert cache


def test_clearing_forgets_everything_and_gives_the_disk_back(cache: ModelCache) -> None:
    cache.set_many([model(f"a/m{each}", card_data={"text": "x" * 5000}) for each in range(50)])
    before = cache.size()
    assert cache.clear() == 50
    assert cache.get_all_cached() == []
    assert cache.size() < before / 5


def test_a_name_in_another_case_is_the_same_model(cache: ModelCache) -> None:
    cache.set(BERT)
    assert cache.get("Google-BERT/bert-BASE") == BERT


def test_a_model_is_found_under_the_name_it_was_asked_for(cache: ModelCache) -> None:
    cache.set(BERT, asked_for="bert-base")
    assert cache.get("bert-base") == BERT
    assert cache.remove("bert-base")
    assert cache.get(BERT.id) is None
    assert cache.get("bert-base") is None


def test_the_models_of_two_hubs_are_kept_apart(tmp_path: Path) -> None:
    ours, theirs = (ModelCache(tmp_path, endpoint=f"https://{each}.example") for each in ("ours", "theirs"))
    ours.set(BERT)
    assert theirs.get(BERT.id, None) is None
    assert theirs.get_all_cached() == theirs.search() == []
    assert (len(ours), len(theirs)) == (1, 0)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "C:\\x", "a/" + "b" * 5000, "a\0b", "\ud800", ""])
def test_no_name_reaches_the_disk(cache: ModelCache, name: str) -> None:
    cache.set(model(name))
    assert {each.name for each in cache.cache_dir.iterdir()} == {cache.path.name}
    with opened(cache.path) as database:
        keys = database.execute("SELECT key FROM models").fetchall()
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for (key,) in keys)


def test_only_the_owner_may_read_it(cache: ModelCache) -> None:
    cache.set(BERT)
    assert cache.path.stat().st_mode & 0o077 == 0


def test_an_endpoint_that_is_never_called_has_no_cache_either(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="link-local"):
        ModelCache(tmp_path, endpoint="http://169.254.1.1")


# Search


LIST = [
    model("meta-llama/Llama-3-8B", downloads=50, likes=9, trending=1.0, modified=NOON, tags=("text-generation", "en")),
    model("someone/tiny-llama", downloads=70, likes=1, trending=None, modified=NOON - timedelta(days=1), tags=("en",)),
    model("BAAI/bge-small", downloads=90, likes=5, trending=9.0, modified=NOON - timedelta(days=2), tags=("mteb",)),
]


@pytest.mark.parametrize(
    ("query", "tags", "sort", "expected"),
    [
        ("llama", [], "downloads", ["someone/tiny-llama", "meta-llama/Llama-3-8B"]),
        ("LLAMA tiny", [], "downloads", ["someone/tiny-llama"]),
        ("", ["en"], "likes", ["meta-llama/Llama-3-8B", "someone/tiny-llama"]),
        ("", ["en", "text-generation"], "downloads", ["meta-llama/Llama-3-8B"]),
        ("", ["e"], "downloads", []),
        ("", [], "downloads", ["BAAI/bge-small", "someone/tiny-llama", "meta-llama/Llama-3-8B"]),
        ("", [], "trending", ["BAAI/bge-small", "meta-llama/Llama-3-8B", "someone/tiny-llama"]),
        ("", [], "updated", ["meta-llama/Llama-3-8B", "someone/tiny-llama", "BAAI/bge-small"]),
        ("100% nothing_", [], "downloads", []),
        ("'; DROP TABLE models; --", [], "downloads", []),
    ],
)
def test_search_finds_words_and_tags_in_order(
    cache: ModelCache, query: str, tags: list[str], sort: str, expected: list[str]
) -> None:
    cache.set_many(LIST)
    assert [each.id for each in cache.search(query, tags, sort)] == expected


def test_search_gives_no_more_than_it_is_asked_for(cache: ModelCache) -> None:
    cache.set_many(LIST)
    assert [each.id for each in cache.search(limit=1)] == ["BAAI/bge-small"]


def test_ten_thousand_models_are_searched_without_reading_those_that_are_not_shown(
    cache: ModelCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.set_many(
        [model(f"org{each % 97}/model-{each}", downloads=each, tags=("en", f"t{each % 50}")) for each in range(10_000)]
    )
    with opened(cache.path) as database:
        database.execute(
            "UPDATE bodies SET body = 'spoilt' WHERE key NOT IN (SELECT key FROM models WHERE downloads > 9000)"
        )
    with caplog.at_level(logging.WARNING):
        found = cache.search("model", ["t7"], limit=20)
    assert [each.downloads for each in found] == list(range(9957, 8957, -50))
    assert not caplog.records


def test_what_a_list_says_does_not_replace_what_is_known_better(cache: ModelCache, time: Time) -> None:
    cache.set(BERT)
    partial = replace(BERT, complete=False, files=(), size=None)
    cache.set_many([partial])
    assert cache.get(BERT.id) == BERT
    time.pass_(hours=25)
    cache.set_many([replace(partial, cached_at=time.moment)])
    assert cache.get(BERT.id) == replace(partial, cached_at=time.moment)


# Several processes, and what happens to files


def _writer(folder: str, number: int) -> int:
    cache = ModelCache(folder)
    for each in range(25):
        cache.set(model(f"p{number}/m{each}", downloads=each))
        found = cache.get(f"p{number}/m{each}", None)
        assert found is not None
        assert found.downloads == each
        cache.search("m")
    return number


def test_several_processes_write_and_read_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as pool:
        assert sorted(pool.map(_writer, [str(tmp_path)] * 4, range(4))) == [0, 1, 2, 3]
    assert len(ModelCache(tmp_path)) == 100


def test_several_threads_share_one_instance(cache: ModelCache) -> None:
    def work(number: int) -> bool:
        cache.set(model(f"a/{number}"))
        return cache.get(f"a/{number}", None) is not None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(80)))
    assert len(cache) == 80


def test_it_is_there_in_the_next_process(tmp_path: Path) -> None:
    code = "import sys; from hf_gateway.hub import *; ModelCache(sys.argv[1]).set(ModelMetadata(id='a/b', downloads=7))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    found = ModelCache(tmp_path).get("a/b")
    assert found is not None
    assert found.downloads == 7


def test_a_fork_goes_on_with_it(cache: ModelCache) -> None:
    cache.set(BERT)
    child = os.fork()
    if child == 0:
        cache.set(model("a/child"))
        os._exit(0 if cache.get(BERT.id) == BERT else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.get("a/child") is not None


def _text(database: sqlite3.Connection) -> None:
    database.execute("UPDATE bodies SET body = 'not json'")


def _cut(database: sqlite3.Connection) -> None:
    database.execute("UPDATE bodies SET body = substr(body, 1, 40)")


def _digit(database: sqlite3.Connection) -> None:
    database.execute("UPDATE bodies SET body = replace(body, '\"downloads\":12', '\"downloads\":13')")


def _digest(database: sqlite3.Connection) -> None:
    database.execute("UPDATE bodies SET digest = x'00'")


def _bytes(database: sqlite3.Connection) -> None:
    database.execute("UPDATE bodies SET body = x'ff00ff'")


def _validators(database: sqlite3.Connection) -> None:
    database.execute("UPDATE bodies SET validators = NULL")


@pytest.mark.parametrize("spoil", [_text, _cut, _digit, _digest, _bytes, _validators])
def test_a_spoilt_entry_is_one_miss(cache: ModelCache, spoil: Callable[[sqlite3.Connection], None]) -> None:
    cache.set(BERT)
    with opened(cache.path) as database:
        spoil(database)
    other = model("a/other")
    cache.set(other)
    assert cache.get(BERT.id) is None
    assert cache.get(other.id, None) == other
    assert cache.search("bert") == []
    assert cache.get_all_cached() == [other]
    cache.set(BERT)
    assert cache.get(BERT.id) == BERT


def test_an_entry_of_another_shape_is_a_miss_whatever_its_digest_says(cache: ModelCache) -> None:
    from hf_gateway.hub.cache import _digest as digest

    cache.set(BERT)
    for body in (
        "[]",
        "{}",
        '{"id": 5}',
        '{"id": "a/b", "cached_at": "yesterday"}',
        "null",
        '{"id": "a/b", "files": [1]}',
    ):
        cache.set(BERT)
        with opened(cache.path) as database:
            database.execute("UPDATE bodies SET body = ?, digest = ?", (body, digest(body)))
        assert cache.get(BERT.id) is None, body


GARBAGE = [b"", b"not a database, and long enough to be taken for one " * 50, b"SQLite format 3\0garbage"]


@pytest.mark.parametrize("content", GARBAGE)
def test_a_file_that_is_no_database_is_begun_anew(cache: ModelCache, content: bytes) -> None:
    cache.cache_dir.mkdir(parents=True)
    cache.path.write_bytes(content)
    assert cache.get(BERT.id) is None
    cache.set(BERT)
    assert cache.get(BERT.id) == BERT


def _malformed(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA writable_schema=ON")
    database.execute(
        "UPDATE sqlite_master SET sql = CAST(x'ff00fe41' AS TEXT), name = CAST(x'ffc3' AS TEXT) WHERE name = 'trees'"
    )


def _without(*tables: str) -> Callable[[sqlite3.Connection], None]:
    def drop(database: sqlite3.Connection) -> None:
        for table in tables:
            database.execute(f"DROP TABLE {table}")

    return drop


def _without_a_column(database: sqlite3.Connection) -> None:
    database.execute("ALTER TABLE bodies RENAME COLUMN digest TO hash")


def _of_something_else(database: sqlite3.Connection) -> None:
    _without("models", "bodies", "trees", "renames")(database)
    database.execute("CREATE TABLE something (other INTEGER)")


def _no_text(database: sqlite3.Connection) -> None:
    database.execute("UPDATE bodies SET body = CAST(x'ff00ff' AS TEXT)")


SCHEMAS = [
    _malformed,
    _without("renames"),
    _without("models"),
    _without("bodies", "trees"),
    _without_a_column,
    _of_something_else,
    _no_text,
]


@pytest.mark.parametrize("spoil", SCHEMAS)
@pytest.mark.parametrize("first", ["get", "set", "search", "get_all_cached", "remove", "clear", "tree"])
def test_a_database_of_another_make_is_one_miss_and_begun_anew(
    cache: ModelCache, spoil: Callable[[sqlite3.Connection], None], first: str
) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "get": (BERT.id,),
        "remove": (BERT.id,),
        "set": (BERT,),
        "tree": ("a/b", "0"),
    }
    cache.set(BERT)
    with opened(cache.path) as database:
        spoil(database)
    getattr(cache, first)(*arguments.get(first, ()))
    cache.set(BERT)
    assert cache.get(BERT.id) == BERT
    assert cache.search("bert") == cache.get_all_cached() == [BERT]


def test_what_cannot_be_forgotten_just_now_is_told_and_kept(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_gateway.hub.cache.BUSY_TIMEOUT_S", 0.0)
    cache.set(BERT)
    with opened(cache.path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="cannot be written to; nothing was removed"):
            cache.clear()
        with pytest.raises(OSError, match="cannot be written to"):
            cache.remove(BERT.id)
        assert cache.get(BERT.id) == BERT
    assert cache.remove(BERT.id)


@pytest.mark.parametrize("limit", [2**63, 10**20])
def test_a_search_of_any_limit_and_any_words_is_answered(cache: ModelCache, limit: int) -> None:
    cache.set_many(LIST)
    assert len(cache.search(limit=limit)) == len(LIST)
    assert cache.search("\udcff", ["\udcff"]) == []
    cache.search(" ".join(map(str, range(40_000))))  # more than a statement holds; nothing is lost for it
    assert len(cache.search()) == len(LIST)


def test_numbers_and_moments_that_no_database_orders_are_kept_all_the_same(cache: ModelCache) -> None:
    east = timezone(timedelta(hours=5))
    odd = model("a/odd", downloads=-(2**64), likes=2**64, modified=datetime(1, 1, 1, tzinfo=east))
    cache.set_many([odd])
    assert cache.get("a/odd") == odd
    assert cache.search(sort="updated") == [odd]


def test_pages_that_were_overwritten_crash_nobody(cache: ModelCache) -> None:
    cache.set_many([model(f"a/m{each}", card_data={"text": "x" * 900}) for each in range(60)])
    content = bytearray(cache.path.read_bytes())
    content[4096 : len(content) - 4096] = b"\xa5" * (len(content) - 8192)
    cache.path.write_bytes(bytes(content))
    for each in range(60):
        cache.get(f"a/m{each}")
    cache.search("m")
    cache.get_all_cached()
    cache.set(BERT)
    assert cache.get(BERT.id) == BERT


def test_a_folder_that_cannot_be_written_to_costs_the_cache_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    cache = ModelCache(tmp_path / "file" / "cache")
    with caplog.at_level(logging.WARNING):
        cache.set(BERT)
    assert cache.get(BERT.id) is None
    assert "are not cached" in caplog.text
