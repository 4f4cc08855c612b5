"""Nothing that a caller writes makes the server ask an address, read a file, start a process or change its configuration.

One walk over every route of the table with a hostile value in every place, against a real process that notes what it starts.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.loopback import Loopback
from tests.support.databases import a_ledger
from tests.support.every_chain import every_chain
from tests.support.gateway_server import ServerProcess
from tests.support.late import COLLECTED
from tests.support.route_walk import Request, chain_for, plain_path, requests, walk
from tests.support.server_keys import bearer, make_key

if COLLECTED:
    from hf_gateway.server.application import ROUTES

pytestmark = [pytest.mark.xdist_group("server_side_requests")]

SECRET = "the canary's own words"
HOOK = """
import os, sys

def note(event, details, out=os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
    if event in {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn"}:
        os.write(out, f"{event} {details}\\n".encode("utf-8", "replace"))

sys.addaudithook(note)
"""
"""A `sitecustomize` that notes each process that Python starts."""


@dataclass
class Walked:
    """What a walk has led to."""

    answers: list[tuple[Request, int, str]]
    elsewhere: Loopback
    """Where the values lead."""
    started: str
    """Processes that were started meanwhile."""
    children: str
    """Processes that are there afterwards."""
    before: dict[Path, bytes]
    """The files of the server's operator."""
    folder: Path
    upstream: set[tuple[str, str]]
    """Methods and paths that the targets were asked for."""
    log: str


def forms(port: int, canary: Path) -> tuple[str, ...]:
    """Return addresses of a listener in every form by which one was smuggled into a server, templates, and a file."""
    place = f"127.0.0.1:{port}"
    return (
        f"http://{place}/a",
        f"owner/model#@{place}/",
        f"http://huggingface.co@{place}/b",
        f"openai:http://{place}",
        canary.as_uri(),
        f"http://{place}#@huggingface.co/",
        f"//{place}/c",
        f"hf.co:443@{place}",
        f"tei:http://localhost:{port}",
        f"http://2130706433:{port}/d",
        f"..//{place}/e",
        f"HTTP://[::ffff:127.0.0.1]:{port}/f",
        "{{ 'zq' ~ 'xw' }}${'zq'+'xw'}<%= 'zq'+'xw' %>",
        f"redis://{place}/0",
        f"{place}/owner/model",
        f"owner@{place}/model?#",
        str(canary),
        f"http://{place}\\@huggingface.co/",
        f"data:text/html,<img src=http://{place}/g>",
    )


def files_in(folder: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".toml", ".md", ".json", ".npy", ".parquet")
    }


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[Walked]:
    folder = tmp_path_factory.mktemp("walked")
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    canary, notes = folder / "canary.txt", folder / "notes"
    canary.write_text(SECRET, encoding="utf-8")
    notes.touch()
    environment = {
        "HF_GATEWAY_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
        "NOTES": str(notes),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder / "hook"), os.environ.get("PYTHONPATH", "")))),
    }
    with contextlib.ExitStack() as stack:
        elsewhere = stack.enter_context(Loopback())
        database = stack.enter_context(a_ledger("sqlite", folder))
        chains = stack.enter_context(every_chain(folder, f'database = "{database}"\n'))
        config = chains.config + f'[server.open]\ntargets = ["openai:{chains.openai.url}"]\n'
        stack.enter_context(contextlib.chdir(folder))
        process = stack.enter_context(ServerProcess(config, environment=environment))
        client = stack.enter_context(process.client(headers=bearer(make_key(database))))
        assert client.get("/readyz").text == "ready"
        client.get("/admin/health")  # loads what is loaded once
        before, began = files_in(folder), len(notes.read_bytes())
        answers = list(walk(client, requests(ROUTES, forms(elsewhere.port, canary))))
        started = notes.read_bytes()[began:].decode()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        upstream = {
            (request.method, request.path) for target in (chains.openai, chains.toolkit) for request in target.requests
        }
        yield Walked(
            answers,
            elsewhere,
            started,
            children.read_text() if children.exists() else "",
            before,
            folder,
            upstream,
            process.log,
        )


def test_the_walk_gets_beyond_the_first_check(walked: Walked) -> None:
    """Else what follows would say little."""
    statuses = [status for _, status, _ in walked.answers]
    served = {request.path.partition("?")[0] for request, status, _ in walked.answers if status == 200}
    with_body = {plain_path(route) for route in ROUTES if route.request is not None}
    assert len(statuses) > 700
    assert statuses.count(200) > len(statuses) / 4
    assert len(served & with_body) > len(with_body) / 2, with_body - served
    assert {chain_for(route) for route in ROUTES} == {"docs", "words", "sorter", "talk", "draw", "judge"}
    assert not [each for each in walked.answers if each[1] == 500]
    assert "Traceback" not in walked.log


def test_no_field_no_header_and_no_path_makes_it_ask_an_address(walked: Walked) -> None:
    """CVE-2025-66405, Portkey #1597 and #1718: a header named the host, an older route had no check, `#` in a name passed it.

    CVE-2025-6242: the address of a picture was fetched. CVE-2026-22778: what was fetched was executed.
    """
    assert walked.elsewhere.connections == 0


def test_targets_are_asked_for_their_own_paths_alone(walked: Walked) -> None:
    allowed = {"/v1/chat/completions", "/v1/images/generations", "/v1/completions", "/v1/embeddings", "/v1/models"}
    allowed |= {"/chat/completions", "/images/generations", "/models", "/", "/health", "/info"}
    assert {path for _, path in walked.upstream} <= allowed


def test_no_file_is_read_for_a_caller(walked: Walked) -> None:
    assert not [request for request, _, text in walked.answers if SECRET in text or "root:x:" in text]


def test_what_a_caller_writes_is_no_template(walked: Walked) -> None:
    """GHSA-xqmj-j6mv-4862 and GHSA-46cm-pfwv-cgf8: prompts of callers were templates."""
    assert not [request for request, _, text in walked.answers if "zqxw" in text]
    assert [request for request, _, text in walked.answers if "zq" in text]


def test_no_route_starts_a_process(walked: Walked) -> None:
    """GHSA-v4p8-mg3p-g94g and Bifrost #5760: a route of administration ran a command."""
    assert walked.started == ""
    assert walked.children.split() == []


def test_no_route_writes_the_configuration(walked: Walked) -> None:
    """CVE-2026-35029: any key could change the configuration over HTTP."""
    assert files_in(walked.folder) == walked.before
    assert not [route for route in ROUTES if "config" in route.path or route.method == "PUT"]
