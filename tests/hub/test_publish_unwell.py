"""A Hub that does not get on while an adapter is published: the process that sends is ended, and the error names the step."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.hub import HubConnector, upload
from hf_gateway.hub.errors import PublishStopped
from tests.servers.hub_commits import Blob
from tests.servers.loopback import Recorded, Reply, drip, hang, html, redirect
from tests.support.publishing import REPO, TOKEN, Hub, adapter

AT_MOST_S = 30.0
"""For one publishing, with a Python that starts on a loaded machine."""
PLACES = {
    "making the repository": "/api/repos/create",
    "checking the card": "/api/validate-yaml",
    "asking how the files are to be sent": f"/api/models/{REPO}/preupload/main",
    "asking where the large files go": f"/{REPO}.git/info/lfs/objects/batch",
    "sending the large files": "",
    "having the large files checked": f"/{REPO}.git/info/lfs/objects/verify",
    "committing": f"/api/models/{REPO}/commit/main",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return adapter(tmp_path / "adapter")


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "STEP_S", 1.5)
    monkeypatch.setattr(upload, "SENDING_S", 1.5)


def path_of(step: str, folder: Path) -> str:
    return PLACES[step] or f"/lfs-storage/{Blob((folder / 'adapter_model.safetensors').read_bytes()).sha256}"


def processes(*, in_folder: Path | None = None) -> list[tuple[int, str, str]]:
    """The processes that publish for this one, or that work in a folder: id, arguments, environment."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (each / "cmdline").read_bytes().decode(errors="replace")
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            ours = parent == os.getpid() if in_folder is None else (each / "cwd").resolve() == in_folder
            if "upload_worker" in arguments and ours:
                found.append((int(each.name), arguments, (each / "environ").read_bytes().decode(errors="replace")))
        except (OSError, ValueError):  # it ended meanwhile
            continue
    return found


@pytest.mark.parametrize("step", PLACES)
def test_silence_ends_with_the_name_of_the_step_and_leaves_nothing(step: str, hub: Hub, folder: Path) -> None:
    hub.always(hang(), path=path_of(step, folder))
    threads, began = threading.active_count(), time.monotonic()
    with pytest.raises(errors.AttemptTimedOut, match=f"{step} made no progress for") as caught:
        hub.publish(folder)
    assert time.monotonic() - began < AT_MOST_S
    assert "nothing was published in part" in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert processes() == []
    assert not any(each.name == "hf-gateway-publish" for each in threading.enumerate())
    assert threads <= threading.active_count() + 1
    hub.recover()
    assert hub.publish(folder).commit == hub.repos[REPO].head.oid
    assert len(hub.repos[REPO].ours) == 1


def test_an_answer_in_drops_is_no_progress(hub: Hub, folder: Path) -> None:
    hub.always(drip(Reply(200, b" " * 10_000), every=0.05), path=PLACES["committing"])
    began = time.monotonic()
    with pytest.raises(errors.AttemptTimedOut, match="committing made no progress"):
        hub.publish(folder)
    assert time.monotonic() - began < AT_MOST_S


@pytest.mark.parametrize(
    "step", ["asking how the files are to be sent", "asking where the large files go", "committing"]
)
@pytest.mark.parametrize("fault", ["a login page", "an answer of something else", "redirects in a circle"])
def test_what_is_no_answer_is_a_bad_response(fault: str, step: str, hub: Hub, folder: Path) -> None:
    path = path_of(step, folder)
    reply = {
        "a login page": html(200),
        "an answer of something else": Reply(200, {"hello": "world"}),
        "redirects in a circle": redirect(path),
    }[fault]
    hub.always(reply, path=path)
    with pytest.raises(errors.GatewayError) as caught:
        hub.publish(folder)
    assert isinstance(caught.value, errors.BadResponse | errors.InvalidRequest)
    assert processes() == []
    assert hub.repos[REPO].ours == []


def test_the_token_is_in_neither_arguments_nor_environment_of_the_process(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("there is no /proc here")
    monkeypatch.setenv("HF_TOKEN", "hf_EnvironmentToken0123456789")
    seen: list[tuple[int, str, str]] = []

    def look(request: Any) -> None:
        if request.path == PLACES["committing"]:
            seen.extend(processes())

    hub.on_request = look
    hub.publish(folder)
    assert len(seen) == 1
    assert TOKEN not in seen[0][1] + seen[0][2]
    assert "HF_TOKEN" not in seen[0][2]


def test_it_tells_of_each_step_and_of_the_bytes(hub: Hub, folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    hub.publish(folder, progress=lambda *said: told.append(said))
    steps = list(dict.fromkeys(step for step, _, _ in told))
    assert [step for step in steps if step in PLACES] == list(PLACES)
    sent = [bytes_sent for step, bytes_sent, _ in told if step == "sending the large files"]
    assert sent[-1] >= (folder / "adapter_model.safetensors").stat().st_size
    assert all(0 <= bytes_sent <= total or not total for _, bytes_sent, total in told)


async def test_cancelled_it_ends_the_process(hub: Hub, folder: Path) -> None:
    hub.always(hang(), path=PLACES["committing"])
    async with HubConnector(endpoint=hub.url) as connector:
        connector.connect(TOKEN)
        task = asyncio.create_task(connector.aupload_artifact(folder, {"repo_id": REPO, "license": "apache-2.0"}))
        await asyncio.to_thread(hub.wait_for, 1, path=PLACES["committing"], timeout=AT_MOST_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.to_thread(_until, lambda: processes() == [])
    assert hub.repos[REPO].ours == []


def test_stopped_it_ends_the_process(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "STEP_S", 60.0)
    hub.always(hang(), path=PLACES["committing"])
    stop, told = threading.Event(), threading.Event()

    def on_request(request: Recorded) -> None:
        if request.path == PLACES["committing"]:
            assert told.wait(AT_MOST_S)  # the request may be here before its step is told
            stop.set()

    hub.on_request = on_request
    with pytest.raises(PublishStopped, match="stopped while committing"):
        hub.publish(folder, stop=stop, progress=lambda step, *_: told.set() if step == "committing" else None)
    assert processes() == []


def test_a_process_whose_parent_is_gone_ends_too(hub: Hub, folder: Path) -> None:
    hub.always(hang(), path=PLACES["committing"])
    code = (
        "import sys\nfrom hf_gateway.values.secret import Secret\nfrom hf_gateway.hub.publish import publish\n"
        "folder, repo_id, endpoint = sys.argv[1:]\n"
        "publish(folder, repo_id=repo_id, endpoint=endpoint, credential=Secret(input()), metadata={'license': 'apache-2.0'})"
    )
    arguments = [sys.executable, "-c", code, str(folder), REPO, hub.url]
    nobody = subprocess.DEVNULL
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=nobody, stderr=nobody, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(f"{TOKEN}\n")
        process.stdin.flush()
        hub.wait_for(1, path=PLACES["committing"], timeout=AT_MOST_S)
        there = processes(in_folder=Path.cwd())
        process.kill()
    assert len(there) == (1 if Path("/proc/self/cwd").exists() else 0)
    _until(lambda: processes(in_folder=Path.cwd()) == [])


def test_a_module_in_the_working_folder_is_not_imported_by_the_process(hub: Hub, folder: Path, tmp_path: Path) -> None:
    for name in ("json", "huggingface_hub", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the working folder ran')")
    assert Path.cwd() == tmp_path
    assert hub.publish(folder).commit


def test_a_process_that_cannot_start_says_why(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_BOOT", f"raise SystemExit('no such module, {TOKEN}')")
    with pytest.raises(errors.EngineFailed, match=r"ended while starting \(exit 1\): no such module, \*\*\*"):
        hub.publish(folder)


def _until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + AT_MOST_S
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)
