"""The cache that all Hugging Face tools share: files left short, other tools' downloads, old names, read-only folders."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hf_gateway import errors
from hf_gateway.hub import HubConnector
from hf_gateway.hub.errors import HubOffline
from hf_gateway.testing import ManualClock
from tests.servers.hub import COMMIT, Listed, ReadHub
from tests.servers.loopback import dead_url, disconnect
from tests.support.publishing import safetensors

MODEL, OLD = "org/model", "model-of-old"
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / WEIGHTS).write_bytes(safetensors())
    return made


@pytest.fixture
def hub(folder: Path) -> Iterator[ReadHub]:
    with ReadHub({MODEL: Listed(folder)}, moved={OLD: MODEL}) as server:
        yield server


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., HubConnector]]:
    """Make connectors that share one cache of metadata; known=False: one that knows of nothing."""
    made: list[HubConnector] = []

    def make(hub: ReadHub | str, *, known: bool = True, **environment: str) -> HubConnector:
        url = hub if isinstance(hub, str) else hub.url
        cache = tmp_path / ("meta" if known else f"meta-{len(made)}")
        made.append(HubConnector(endpoint=url, cache=cache, clock=ManualClock(), environment=environment))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.mark.parametrize("left", [b"", b"cut off"], ids=["empty", "short"])
def test_a_file_that_was_left_short_is_fetched_again(
    left: bytes, hub: ReadHub, connect: Callable[..., HubConnector], folder: Path, files: Path
) -> None:
    path = connect(hub).download_model(MODEL, cache_dir=files).path / WEIGHTS
    path.resolve().write_bytes(left)
    again = connect(hub).download_model(MODEL, cache_dir=files)
    assert path.read_bytes() == (folder / WEIGHTS).read_bytes()
    assert again.new_bytes == path.stat().st_size


def test_a_file_that_was_left_short_is_no_download_without_the_hub(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path
) -> None:
    path = connect(hub).download_model(MODEL, cache_dir=files).path / WEIGHTS
    path.resolve().write_bytes(b"short")
    hub.always(disconnect())
    with pytest.raises(errors.ConnectFailed, match=r"are incomplete: model\.safetensors is missing or cut off"):
        connect(hub).download_model(MODEL, cache_dir=files)


def _as_hf_download_does(hub: ReadHub, files: Path, name: str = MODEL) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, endpoint=hub.url, cache_dir=files, token=False))


@pytest.mark.parametrize("revision", ["main", COMMIT])
@pytest.mark.parametrize("offline", [False, True], ids=["the Hub is away", "HF_HUB_OFFLINE"])
def test_what_another_tool_downloaded_is_found_without_the_hub(
    offline: bool, revision: str, hub: ReadHub, connect: Callable[..., HubConnector], files: Path
) -> None:
    theirs = _as_hf_download_does(hub, files)
    asked = hub.count()
    if offline:
        connector = connect(hub, known=False, HF_HUB_OFFLINE="1")
    else:
        hub.always(disconnect())
        connector = connect(hub, known=False)
    found = connector.download_model(MODEL, revision, files)
    assert (found.path, set(found.files), found.new_bytes) == (theirs, {"config.json", WEIGHTS}, 0)
    assert not offline or hub.count() == asked


def test_what_another_tool_left_short_is_not_taken_for_the_model(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path
) -> None:
    theirs = _as_hf_download_does(hub, files)
    with (theirs / WEIGHTS).resolve().open("r+b") as file:
        file.truncate(100)
    with pytest.raises(
        HubOffline, match=r"are incomplete: model\.safetensors: its header would be longer than the file"
    ):
        connect(hub, known=False, HF_HUB_OFFLINE="1").download_model(MODEL, cache_dir=files)


def test_a_shard_that_another_tool_did_not_get_is_named(
    folder: Path, connect: Callable[..., HubConnector], files: Path
) -> None:
    (folder / WEIGHTS).unlink()
    shards = {name: f"model-0000{name}-of-00002.safetensors" for name in ("1", "2")}
    for shard in shards.values():
        (folder / shard).write_bytes(safetensors())
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    (folder / f"{WEIGHTS}.index.json").write_text(index)
    with ReadHub({MODEL: Listed(folder)}) as hub:
        theirs = _as_hf_download_does(hub, files)
        assert connect(hub, known=False, HF_HUB_OFFLINE="1").download_model(MODEL, cache_dir=files).path == theirs
        (theirs / shards["2"]).unlink()
        with pytest.raises(HubOffline, match=r"names model-00002-of-00002\.safetensors, which is not there"):
            connect(hub, known=False, HF_HUB_OFFLINE="1").download_model(MODEL, cache_dir=files)


def test_a_renamed_model_is_found_offline_by_its_old_name(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path
) -> None:
    first = connect(hub).download_model(OLD, cache_dir=files)
    assert first.model == MODEL
    hub.always(disconnect())
    for name in (OLD, MODEL):
        assert connect(hub).download_model(name, cache_dir=files).path == first.path


def test_metadata_of_a_renamed_model_are_found_by_its_old_name_and_forgotten_with_it(
    hub: ReadHub, connect: Callable[..., HubConnector]
) -> None:
    connector = connect(hub)
    connector.get_model_metadata(OLD)
    assert connector.cache.current_name(OLD) == MODEL
    found = connector.cache.get(OLD)
    assert found is not None
    assert found.id == MODEL
    assert connector.cache.remove(MODEL)
    assert (connector.cache.current_name(OLD), connector.cache.get(OLD)) == (None, None)


def _only_read(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every write below the folder fail, as on a read-only disk; rights alone would not stop the root user."""
    opened = os.open

    def refuse(path: object, flags: int, *rest: int, **named: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(files)):
            raise OSError(30, "Read-only file system", str(path))
        return opened(path, flags, *rest, **named)  # type: ignore[arg-type]

    def refuse_bytes(self: Path, data: bytes) -> int:
        if str(self).startswith(str(files)):
            raise OSError(30, "Read-only file system", str(self))
        return len(data)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse_bytes)


@pytest.mark.parametrize("recorded", [True, False], ids=["with its record", "without its record"])
def test_a_whole_cache_that_is_only_read_serves(
    recorded: bool,
    hub: ReadHub,
    connect: Callable[..., HubConnector],
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = connect(hub).download_model(MODEL, "main" if recorded else COMMIT, files)
    _only_read(files, monkeypatch)
    found = connect(hub).download_model(MODEL, cache_dir=files)
    assert (found.path, found.new_bytes) == (first.path, 0)


def test_a_cache_that_is_only_read_and_lacks_a_file_says_so(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = connect(hub).download_model(MODEL, cache_dir=files)
    (first.path / WEIGHTS).resolve().unlink()
    _only_read(files, monkeypatch)
    with pytest.raises(OSError, match="Read-only file system"):
        connect(hub).download_model(MODEL, cache_dir=files)


def test_one_pattern_is_a_pattern_and_not_its_letters(
    hub: ReadHub, connect: Callable[..., HubConnector], files: Path
) -> None:
    assert connect(hub).download_model(MODEL, cache_dir=files, include="*.json").files == ("config.json",)
    assert WEIGHTS in connect(hub).download_model(MODEL, cache_dir=files, formats="safetensors").files


def test_no_network_and_the_switch_are_told_apart(connect: Callable[..., HubConnector], files: Path) -> None:
    url = dead_url()
    for environment, said in (
        ({}, f"no connection to {url}"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"TRANSFORMERS_OFFLINE": "1"}, "TRANSFORMERS_OFFLINE is set"),
    ):
        with pytest.raises(ConnectionError, match=said):
            connect(url, **environment).download_model(MODEL, cache_dir=files)
