"""Downloads: which files, resumed, with the disk looked at first, the commit recorded; and what comes of every failure."""

import asyncio
import contextlib
import dataclasses
import hashlib
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.hub import Download, HubConnector, ModelFile, transfer
from hf_gateway.hub import download as downloads
from hf_gateway.hub.errors import NotEnoughSpace, UnsafeFiles
from hf_gateway.hub.selection import choose_files, formats, quantisations
from hf_gateway.testing import ManualClock
from tests.servers.hostile import PLACES
from tests.servers.hub import COMMIT, Listed, ReadHub, Storage, whoami
from tests.servers.loopback import Cut, Reply, cut, dead_url, disconnect, hang

TOKEN = "hf_abcDEF0123456789"
MODEL = "org/model"
WEIGHTS = "model.safetensors"
TREE = f"/api/models/{MODEL}/tree/{COMMIT}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "vocab.txt", "README.md", "modeling.py", "1_Pooling/config.json"):
        (made / name).write_text("{}" if name.endswith(".json") else f"{name}!")
    for name in (WEIGHTS, "pytorch_model.bin", "training_args.bin"):
        (made / name).write_bytes(name.encode() * 40_000)
    return made


WANTED = {"config.json", "tokenizer.json", "vocab.txt", "1_Pooling/config.json", WEIGHTS}


@pytest.fixture
def hub(folder: Path) -> Iterator[ReadHub]:
    with ReadHub({MODEL: Listed(folder)}, accounts={TOKEN: whoami("ada")}, moved={"old": MODEL}) as server:
        yield server


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., HubConnector]]:
    made: list[HubConnector] = []

    def make(hub: ReadHub | str, **environment: str) -> HubConnector:
        url = hub if isinstance(hub, str) else hub.url
        made.append(HubConnector(endpoint=url, cache=tmp_path / "meta", clock=ManualClock(), environment=environment))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Where downloads go."""
    return tmp_path / "files"


def held(found: Download) -> set[str]:
    """What is really there."""
    return {path.relative_to(found.path).as_posix() for path in found.path.rglob("*") if path.is_file()}


def test_a_model_comes_with_its_weights_and_small_files_and_without_pickles_or_code(
    hub: ReadHub, connect: Callable[..., HubConnector], folder: Path, files: Path
) -> None:
    told: list[tuple[int, int]] = []
    found = connect(hub).download_model(MODEL, cache_dir=files, progress=lambda *said: told.append(said))
    assert held(found) == set(found.files) == WANTED
    assert all((found.path / name).read_bytes() == (folder / name).read_bytes() for name in WANTED)
    assert (found.revision, found.commit) == ("main", COMMIT)
    assert found.bytes == found.new_bytes == sum((folder / name).stat().st_size for name in WANTED)
    assert told[-1] == (found.bytes, found.bytes)
    assert all(0 <= here <= whole == found.bytes for here, whole in told)


def test_the_commit_is_recorded_where_all_tools_look(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path
) -> None:
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    found = connect(hub).download_model(MODEL, cache_dir=files)
    assert (files / "models--org--model" / "refs" / "main").read_text() == COMMIT
    assert try_to_load_from_cache(MODEL, "config.json", cache_dir=files) == str(found.path / "config.json")
    asked = hub.count()
    theirs = snapshot_download(MODEL, cache_dir=files, local_files_only=True)
    assert (theirs, hub.count()) == (str(found.path), asked)


def test_a_second_download_fetches_nothing(hub: ReadHub, connect: Callable[..., HubConnector], files: Path) -> None:
    first = connect(hub).download_model(MODEL, cache_dir=files)
    asked = hub.count()
    second = connect(hub).download_model(MODEL, cache_dir=files)
    assert second == dataclasses.replace(first, new_bytes=0)
    assert [request.path for request in hub.requests[asked:]] == [f"/api/models/{MODEL}/revision/main"]


async def test_the_async_form_does_the_same(hub: ReadHub, connect: Callable[..., HubConnector], files: Path) -> None:
    connector = connect(hub)
    found = await connector.adownload_model(MODEL, cache_dir=files)
    assert held(found) == WANTED
    await connector.aclose()


def test_without_network_what_was_downloaded_is_served(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path
) -> None:
    first = connect(hub).download_model(MODEL, cache_dir=files)
    hub.always(disconnect())
    assert connect(hub).download_model(MODEL, cache_dir=files) == dataclasses.replace(first, new_bytes=0)
    offline = connect(hub, HF_HUB_OFFLINE="1")
    assert offline.download_model(MODEL, COMMIT, cache_dir=files).path == first.path


def test_without_network_and_without_the_files_it_says_so(connect: Callable[..., HubConnector], files: Path) -> None:
    with pytest.raises(errors.ConnectFailed, match="no connection"):
        connect(dead_url()).download_model(MODEL, cache_dir=files)
    assert not files.exists()


def test_a_commit_needs_no_question_and_writes_no_record(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path
) -> None:
    found = connect(hub).download_model(MODEL, COMMIT, files)
    assert (found.revision, found.commit) == (COMMIT, COMMIT)
    assert hub.requests[0].path == TREE
    assert not (files / "models--org--model" / "refs").exists()


def test_a_model_that_was_renamed_is_kept_under_its_own_name(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path
) -> None:
    found = connect(hub).download_model("old", cache_dir=files)
    assert found.model == MODEL
    assert held(found) == WANTED


def test_a_tree_of_many_pages_is_read_whole(folder: Path, connect: Callable[..., HubConnector], files: Path) -> None:
    with ReadHub({MODEL: Listed(folder)}, page=2) as hub:
        assert held(connect(hub).download_model(MODEL, cache_dir=files)) == WANTED
        assert hub.count(TREE) >= 4


# What is chosen


def listed(*paths: str) -> list[ModelFile]:
    return [ModelFile(path, 10) for path in paths]


CHOICES: dict[str, tuple[list[str], dict[str, Any], set[str]]] = {
    "safetensors before all": (
        ["config.json", "model.safetensors", "onnx/model.onnx", "pytorch_model.bin", "m.gguf", "tf_model.h5"],
        {},
        {"config.json", "model.safetensors"},
    ),
    "ONNX where there are none": (
        [
            "config.json",
            "onnx/model.onnx",
            "onnx/model.onnx_data",
            "onnx/model_qint8.onnx",
            "onnx/config.json",
            "p.bin",
        ],
        {},
        {"config.json", "onnx/config.json", "onnx/model.onnx", "onnx/model.onnx_data"},
    ),
    "ONNX when it is asked for": (
        ["config.json", "model.safetensors", "model.onnx"],
        {"wanted": ["onnx"]},
        {"config.json", "model.onnx"},
    ),
    "both when both are": (
        ["model.safetensors", "model.onnx", "pytorch_model.bin"],
        {"wanted": ["onnx", "safetensors"]},
        {"model.safetensors", "model.onnx"},
    ),
    "pickles when they are asked for by name": (
        ["config.json", "pytorch_model.bin", "training_args.bin", "optimizer.pt", "checkpoint-5/pytorch_model.bin"],
        {"wanted": ["pickle"]},
        {"config.json", "pytorch_model.bin"},
    ),
    "code when it is asked for": (
        ["model.safetensors", "modeling.py"],
        {"code": True},
        {"model.safetensors", "modeling.py"},
    ),
    "no code otherwise": (["model.safetensors", "modeling.py", "run.sh"], {}, {"model.safetensors"}),
    "one quantisation": (["m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf"], {"wanted": ["gguf"]}, {"m-Q4_K_M.gguf"}),
    "the parts of a model, and not the same again in one": (
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "consolidated.safetensors"],
        {},
        {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"},
    ),
    "one piece where there is no other": (
        ["consolidated.safetensors", "params.json"],
        {},
        {"consolidated.safetensors", "params.json"},
    ),
    "no copies of what lies above them": (
        ["model.safetensors", "original/model.safetensors", "metal/model.bin"],
        {},
        {"model.safetensors"},
    ),
    "such a copy where it is the only one of its kind": (
        ["model.safetensors", "original/consolidated.00.pth"],
        {"wanted": ["pickle"]},
        {"original/consolidated.00.pth"},
    ),
    "no checkpoints": (
        ["model.safetensors", "checkpoint-9/model.safetensors", "a/checkpoint-9/config.json"],
        {},
        {"model.safetensors"},
    ),
    "small files alone": (["config.json", "README.md"], {}, {"config.json"}),
}


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_chosen_of_a_repository(name: str) -> None:
    paths, options, expected = CHOICES[name]
    assert {file.path for file in choose_files(listed(*paths), **options)} == expected


def test_pickles_alone_are_refused_with_the_way_to_have_them(
    connect: Callable[..., HubConnector], folder: Path, files: Path
) -> None:
    (folder / WEIGHTS).unlink()
    with ReadHub({MODEL: Listed(folder)}) as hub:
        with pytest.raises(UnsafeFiles, match=r"formats=\['pickle'\]"):
            connect(hub).download_model(MODEL, cache_dir=files)
        assert not files.exists()
        found = connect(hub).download_model(MODEL, cache_dir=files, formats=["pickle"])
        assert "pytorch_model.bin" in held(found)
        assert "training_args.bin" not in held(found)


def test_gguf_alone_says_who_runs_it() -> None:
    with pytest.raises(UnsafeFiles, match="let Ollama pull them"):
        choose_files(listed("m-Q4_K_M.gguf"))


def test_patterns_take_the_place_of_formats(hub: ReadHub, connect: Callable[..., HubConnector], files: Path) -> None:
    found = connect(hub).download_model(MODEL, cache_dir=files, include=["*.md", "*.py"])
    assert held(found) == {"README.md", "modeling.py"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"include": ["*.zip"]}, r"no files that match \*\.zip"),
        ({"formats": ["zip"]}, "unknown format 'zip'"),
        ({"formats": ["gguf"]}, "no weights in gguf; there are some in safetensors, pickle"),
        ({"formats": ["safetensors", "onnx"]}, "no weights in onnx; there are some in safetensors, pickle"),
    ],
)
def test_what_is_not_there_is_an_error_and_no_empty_download(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        connect(hub).download_model(MODEL, cache_dir=files, **options)
    assert not files.exists()


def test_a_repository_without_weights_is_downloaded_only_by_the_names_of_its_files(
    connect: Callable[..., HubConnector], folder: Path, files: Path
) -> None:
    for name in (WEIGHTS, "pytorch_model.bin"):
        (folder / name).unlink()
    with ReadHub({MODEL: Listed(folder)}) as hub:
        for options, said in (
            ({}, "no weights in a known format"),
            ({"formats": ["gguf"]}, "no weights in any format"),
        ):
            with pytest.raises(ValueError, match=said):
                connect(hub).download_model(MODEL, cache_dir=files, **options)
        assert not files.exists()
        assert held(connect(hub).download_model(MODEL, cache_dir=files, include=["*.txt"])) == {"vocab.txt"}


def test_a_module_that_is_left_out_since_it_is_a_pickle_is_named(
    connect: Callable[..., HubConnector], folder: Path, files: Path
) -> None:
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"x" * 50)
    with ReadHub({MODEL: Listed(folder)}) as hub:
        found = connect(hub).download_model(MODEL, cache_dir=files)
        assert (held(found), found.left_out) == (WANTED, ("2_Dense/pytorch_model.bin",))
        both = connect(hub).download_model(MODEL, cache_dir=files, formats=["safetensors", "pickle"])
        assert both.left_out == ()
        assert "2_Dense/pytorch_model.bin" in held(both)


def test_quantisations_go_by_ollamas_names() -> None:
    names = [
        "a-Q4_K_M.gguf",
        "a.Q8_0.gguf",
        "a-UD-IQ2_XXS.gguf",
        "a-BF16-00001-of-00002.gguf",
        "mmproj-F16.gguf",
        "a.gguf",
    ]
    assert set(quantisations(listed(*names))) == {"Q4_K_M", "Q8_0", "UD-IQ2_XXS", "BF16"}
    assert formats(listed(*names)) == ["gguf"]


# What goes wrong


def partial(files: Path) -> list[int]:
    """The bytes of files that are not whole yet."""
    return [path.stat().st_size for path in files.rglob("*.incomplete")]


def test_a_download_that_broke_off_goes_on_from_there(
    folder: Path, connect: Callable[..., HubConnector], files: Path
) -> None:
    content = (folder / WEIGHTS).read_bytes()
    with Storage() as storage, ReadHub({MODEL: Listed(folder)}, storage=storage) as hub:
        half = len(content) // 2
        storage.fail(Cut(Reply(200, content[:half]), len(content) - half))
        found = connect(hub).download_model(MODEL, cache_dir=files)
        assert (found.path / WEIGHTS).read_bytes() == content
        ranges = [request.headers.get("range") for request in storage.requests if request.method == "GET"]
        assert ranges == [None, f"bytes={half}-"]


async def test_a_download_that_was_given_up_goes_on_the_next_time(
    folder: Path, connect: Callable[..., HubConnector], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "READ_TIMEOUT_S", 0.5)  # after which the one that was given up lets go of the file
    content = (folder / WEIGHTS).read_bytes()
    half = len(content) // 2
    with Storage() as storage, ReadHub({MODEL: Listed(folder)}, storage=storage) as hub:
        storage.fail(Cut(Reply(200, content[:half]), len(content) - half))
        storage.always(held_up := hang())
        task = asyncio.create_task((connector := connect(hub)).adownload_model(MODEL, cache_dir=files))
        await asyncio.to_thread(storage.wait_for, 2, timeout=20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await connector.aclose()
        held_up.release()
        storage.recover()
        before = len(storage.requests)
        # What came before the one that was given up let go of the file is kept, too.
        (kept,) = [size for size in await asyncio.to_thread(partial, files) if size]
        assert half <= kept <= len(content)
        found = await connect(hub).adownload_model(MODEL, cache_dir=files)
        assert (found.path / WEIGHTS).read_bytes() == content
        assert all(request.headers.get("range") for request in storage.requests[before:] if request.method == "GET")


def test_a_disk_that_is_too_small_is_noticed_before_a_byte_is_fetched(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=250 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    large = [{"type": "file", "path": WEIGHTS, "size": 40 * 10**9, "oid": "0" * 40}]
    hub.always(Reply(200, large), path=TREE)
    with pytest.raises(OSError, match=r"needs 40\.0 GB, and .* has 262 MB free") as caught:
        connect(hub).download_model(MODEL, cache_dir=files)
    assert isinstance(caught.value, NotEnoughSpace)
    assert not any("/resolve/" in request.path for request in hub.requests)


def test_what_is_here_already_needs_no_room(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(hub).download_model(MODEL, cache_dir=files)
    usage = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert connect(hub).download_model(MODEL, cache_dir=files).new_bytes == 0


def resolve(file: str) -> str:
    return f"/{MODEL}/resolve/{COMMIT}/{file}"


def refused(status: int, code: str) -> Reply:
    return Reply(status, {"error": "no"}, {"x-error-code": code, "x-error-message": "no"})


REFUSALS: dict[str, tuple[Reply, bool, type[Exception], str]] = {
    "gated, nobody logged in": (refused(401, "GatedRepo"), False, errors.KeyMissing, "then set HF_TOKEN"),
    "gated, licence not accepted": (refused(403, "GatedRepo"), True, errors.GatedModel, "accept its licence at"),
    "private meanwhile": (refused(404, "RepoNotFound"), True, errors.ModelNotFound, "the token may not read it"),
    "a token that was revoked": (refused(401, ""), True, errors.AuthenticationFailed, "refuses the token"),
    "not allowed": (refused(403, ""), True, errors.PermissionDenied, "may not do this"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_of_files_says_what_to_do_and_carries_no_token(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path, name: str
) -> None:
    reply, logged_in, expected, said = REFUSALS[name]
    for file in WANTED:
        hub.always(reply, path=resolve(file))
    connector = connect(hub)
    if logged_in:
        connector.connect(TOKEN)
    with pytest.raises(expected, match=said) as caught:
        connector.download_model(MODEL, cache_dir=files)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("revision", ["fix#12", "v1@beta", "v2(final)", "größer", "50%", "a&b=c", "x+y"])
def test_a_branch_may_have_any_name_that_git_takes(
    folder: Path, connect: Callable[..., HubConnector], files: Path, revision: str
) -> None:
    with ReadHub({MODEL: Listed(folder, refs=("main", revision))}) as hub:
        found = connect(hub).download_model(MODEL, revision, files)
    assert (found.revision, found.commit, held(found)) == (revision, COMMIT, WANTED)


def test_a_revision_that_there_is_not_is_named(hub: ReadHub, connect: Callable[..., HubConnector], files: Path) -> None:
    with pytest.raises(errors.ModelNotFound, match=r"org/model@v9 has no such revision"):
        connect(hub).download_model(MODEL, "v9", files)
    with pytest.raises(errors.ModelNotFound, match="there is no 'a/none'"):
        connect(hub).download_model("a/none", cache_dir=files)


def test_silence_has_an_end_and_what_came_is_kept(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.always(hang(), path=resolve(WEIGHTS))
    monkeypatch.setattr(transfer, "READ_TIMEOUT_S", 0.4)
    monkeypatch.setattr(downloads.Stop, "wait", lambda self, seconds: self.is_set())
    with pytest.raises(errors.AttemptTimedOut, match="the partial file is kept"):
        connect(hub).download_model(MODEL, cache_dir=files)
    hub.wait_for(transfer.TRIES, resolve(WEIGHTS))
    assert hub.count(resolve(WEIGHTS)) == transfer.TRIES
    assert not (files / "models--org--model" / "refs").exists()


@pytest.mark.parametrize("place", ["a header's value", "103 Early Hints", "chunk extension", "empty blocks of gzip"])
def test_a_file_of_which_never_a_byte_comes_is_given_up(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    hub.always(PLACES[place], path=resolve(WEIGHTS))
    monkeypatch.setattr(transfer, "READ_TIMEOUT_S", 0.4)
    monkeypatch.setattr(downloads.Stop, "wait", lambda self, seconds: self.is_set())
    began = time.monotonic()
    with pytest.raises(errors.AttemptTimedOut, match="the partial file is kept"):
        connect(hub).download_model(MODEL, cache_dir=files)
    assert time.monotonic() - began < 12
    hub.wait_for(transfer.TRIES, resolve(WEIGHTS))


@pytest.mark.parametrize(
    "place", ["http://[", "http://127.0.0.1:99999/", "http://xn--a/", "/a\x7fb", "ftp://127.0.0.1/a"]
)
def test_a_file_that_is_sent_to_nonsense_is_a_bad_answer(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(downloads.Stop, "wait", lambda self, seconds: self.is_set())
    hub.always(Reply(302, b"", {"location": place}), path=resolve(WEIGHTS))
    with pytest.raises((errors.BadResponse, errors.ConnectFailed)):
        connect(hub).download_model(MODEL, cache_dir=files)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a download would have waited for, and does not."""
    waited: list[float] = []
    monkeypatch.setattr(downloads.Stop, "wait", lambda self, seconds: waited.append(seconds) or self.is_set())
    return waited


def test_a_full_window_is_waited_out(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path, waits: list[float]
) -> None:
    hub.fail(Reply(429, {"error": "slow down"}, {"ratelimit": '"resolvers";r=0;t=123'}), path=resolve(WEIGHTS))
    assert held(connect(hub).download_model(MODEL, cache_dir=files)) == WANTED
    assert waits == [123]


def test_an_hour_is_not(hub: ReadHub, connect: Callable[..., HubConnector], files: Path, waits: list[float]) -> None:
    hub.always(Reply(429, {"error": "slow down"}, {"ratelimit": '"resolvers";r=0;t=3600'}), path=resolve(WEIGHTS))
    with pytest.raises(errors.RateLimited, match="asks to wait for 3600 s") as caught:
        connect(hub).download_model(MODEL, cache_dir=files)
    assert (caught.value.retry_after, waits) == (3600, [])


def test_a_busy_hub_is_asked_a_few_times_and_no_more(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path, waits: list[float]
) -> None:
    hub.always(Reply(503, {"error": "busy"}), path=resolve(WEIGHTS))
    with pytest.raises(errors.ServerError, match="too busy"):
        connect(hub).download_model(MODEL, cache_dir=files)
    assert hub.count(resolve(WEIGHTS)) == transfer.TRIES
    assert max(waits) <= 8


def test_a_download_that_moves_on_a_little_each_time_is_not_given_up(
    folder: Path, connect: Callable[..., HubConnector], files: Path, waits: list[float]
) -> None:
    content = (folder / WEIGHTS).read_bytes()
    step = len(content) // 10
    with Storage() as storage, ReadHub({MODEL: Listed(folder)}, storage=storage) as hub:
        for number in range(9):
            part = Reply(206 if number else 200, content[number * step : (number + 1) * step])
            storage.fail(Cut(part, len(content) - (number + 1) * step))
        found = connect(hub).download_model(MODEL, cache_dir=files)
        assert (found.path / WEIGHTS).read_bytes() == content
        assert storage.count() == 10


def test_storage_that_does_not_know_ranges_gives_the_file_from_its_beginning(
    folder: Path, connect: Callable[..., HubConnector], files: Path, waits: list[float]
) -> None:
    content = (folder / WEIGHTS).read_bytes()
    with Storage() as storage, ReadHub({MODEL: Listed(folder)}, storage=storage) as hub:
        storage.fail(Cut(Reply(200, content[:1000]), 5), Reply(200, content))
        assert (connect(hub).download_model(MODEL, cache_dir=files).path / WEIGHTS).read_bytes() == content
        storage.fail()


@pytest.mark.parametrize("left", [b"x" * 10, b"x" * 680_000, b"x" * 900_000])
def test_a_part_of_something_else_does_not_become_the_file(
    hub: ReadHub, connect: Callable[..., HubConnector], folder: Path, files: Path, waits: list[float], left: bytes
) -> None:
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    part = files / "models--org--model" / "blobs" / f"{digest}.hf-gateway.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    with contextlib.suppress(errors.BadResponse):
        connect(hub).download_model(MODEL, cache_dir=files)
    found = connect(hub).download_model(MODEL, cache_dir=files)
    assert (found.path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_a_file_that_was_changed_on_the_way_is_no_model(
    folder: Path, connect: Callable[..., HubConnector], files: Path
) -> None:
    content = (folder / WEIGHTS).read_bytes()
    with Storage() as storage, ReadHub({MODEL: Listed(folder)}, storage=storage) as hub:
        storage.always(Reply(200, content[:-1] + b"?"))
        with pytest.raises(errors.BadResponse, match="not what the Hub lists"):
            connect(hub).download_model(MODEL, cache_dir=files)
    assert not list(files.rglob(WEIGHTS))


def test_two_processes_download_at_once_and_fetch_each_file_once(hub: ReadHub, files: Path, tmp_path: Path) -> None:
    code = """
import sys
from hf_gateway.hub import HubConnector
with HubConnector(endpoint=sys.argv[1], cache=sys.argv[3]) as hub:
    print(hub.download_model("org/model", cache_dir=sys.argv[2]).path)
"""
    command = [sys.executable, "-c", code, hub.url, str(files)]
    running = [
        subprocess.Popen([*command, str(tmp_path / str(number))], stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    first, second = [Path(process.communicate(timeout=60)[0].strip()) for process in running]
    assert first == second
    assert {path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()} == WANTED
    contents = {(first / name).read_bytes() for name in WANTED}
    assert sum(request.path.startswith(resolve("")) for request in hub.requests) == len(contents)


def test_a_file_that_is_larger_than_http_gives_is_refused_first(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path
) -> None:
    huge = [{"type": "file", "path": WEIGHTS, "size": 60 * 10**9, "oid": "0" * 40}]
    hub.always(Reply(200, huge), path=TREE)
    with pytest.raises(errors.BadResponse, match=r"larger than 50 GB.*`hf download`"):
        connect(hub).download_model(MODEL, cache_dir=files)


def test_where_there_are_no_links_files_are_copied(
    hub: ReadHub, connect: Callable[..., HubConnector], folder: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    found = connect(hub).download_model(MODEL, cache_dir=files)
    assert held(found) == WANTED
    assert not any(path.is_symlink() for path in found.path.rglob("*"))


def test_a_folder_that_cannot_be_written_to_is_named(
    hub: ReadHub, connect: Callable[..., HubConnector], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        connect(hub).download_model(MODEL, cache_dir=tmp_path / "file" / "cache")


def test_a_file_of_another_size_than_was_said_is_no_model(
    folder: Path, connect: Callable[..., HubConnector], files: Path
) -> None:
    with Storage() as storage, ReadHub({MODEL: Listed(folder)}, storage=storage) as hub:
        storage.always(Reply(200, b"short"))
        with pytest.raises(errors.BadResponse, match="5 bytes long, not 680000"):
            connect(hub).download_model(MODEL, cache_dir=files)


def test_a_cut_answer_about_the_files_is_told(hub: ReadHub, connect: Callable[..., HubConnector], files: Path) -> None:
    hub.always(cut(b'[{"type": "file"'), path=TREE)
    with pytest.raises(errors.ConnectFailed, match="broke"):
        connect(hub).download_model(MODEL, cache_dir=files)
