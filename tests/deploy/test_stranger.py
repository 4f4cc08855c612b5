"""A stranger's path: an empty folder, the wheel, `init`, `serve`, the page, clients, the same file in the chart."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.deploy.chart import of_kind, one, render
from tests.deploy.images import EPOCH_S, built, need
from tests.deploy.pods import Pod
from tests.deploy.schemas import problems
from tests.deploy.services import CHAT_MODEL, DIMENSION, EMBEDDING_MODEL, free_port, model_server, redis
from tests.deploy.tools import ROOT, run

EXTRAS = "langchain,llamaindex,server"
PROGRAMS = ("celery[redis]", "gunicorn", "streamlit")
"""What programs of docs/programs.md need besides, which are run here since the environment for development lacks it."""
INSTALL_S = 900.0
CLIENTS = Path(__file__).with_name("stranger_clients.py")
ANSWERED = {
    "dimension": DIMENSION,
    "same over every door": True,
    "another text is another vector": True,
    "langchain": "Hello there",
    "langchain, streamed": "Hello there",
    "llamaindex": "Hello there",
}


@dataclass
class Stranger:
    """Somebody with an empty folder, a home of their own, and an environment with nothing but the wheel and langchain-openai."""

    folder: Path
    python: Path
    models_url: str
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Their variables: none of this machine's settings but what pip needs."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
        return {
            **kept,
            "HOME": str(self.folder.with_name("home")),
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            **self.more,
        }

    def run(self, *command: str | Path) -> str:
        """Run a command in the folder; return what it prints."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"[-3000:]
        return done.stdout

    def gateway(self, *words: str) -> str:
        """Run `hf-gateway`."""
        return self.run(self.python.parent / "hf-gateway", *words)

    def clients(self, url: str, *, key: str | None = None) -> Any:
        """Ask a server by every client."""
        self.more = {} if key is None else {"GATEWAY_KEY": key}
        return json.loads(self.run(self.python, CLIENTS, url, EMBEDDING_MODEL, CHAT_MODEL))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    place = tmp_path_factory.mktemp("stranger")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    options = ["wheel", "--no-deps", "--wheel-dir", str(place), str(ROOT)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH_S}
    subprocess.run([*pip, *options], check=True, env=environment, timeout=INSTALL_S)
    (wheel,) = place.glob("hf_gateway-*.whl")
    wanted = [f"hf-gateway[{EXTRAS}] @ {wheel.as_uri()}", "langchain-openai", *PROGRAMS]
    command = [sys.executable, ROOT / "set_up.py", place / "venv", "--constraint", ROOT / "constraints.txt", *wanted]
    done = run(*command, timeout=INSTALL_S)
    assert done.returncode == 0, done.stderr[-3000:]
    (place / "folder").mkdir()
    (place / "home").mkdir()
    with model_server() as models_url:
        yield Stranger(place / "folder", place / "venv" / "bin" / "python", models_url)


@pytest.fixture(scope="module")
def config(stranger: Stranger) -> dict[str, Any]:
    """What `hf-gateway init` wrote, which found the server of models by its port."""
    said = stranger.gateway("init", "--yes", "--ports", str(urlsplit(stranger.models_url).port))
    assert f"found a server with OpenAI's API at {stranger.models_url}: {EMBEDDING_MODEL}, {CHAT_MODEL}" in said
    assert said.count("works") == 2, said
    assert "hf-gateway serve" in said
    return tomllib.loads((stranger.folder / "hf-gateway.toml").read_text())


def test_init_finds_the_models_and_writes_a_chain_for_each(config: dict[str, Any], stranger: Stranger) -> None:
    target = f"openai:{stranger.models_url}/v1"
    assert {(chain.get("task", "embedding"), chain["model"]) for chain in config["chains"].values()} == {
        ("embedding", EMBEDDING_MODEL),
        ("chat", CHAT_MODEL),
    }
    assert all(target in chain["targets"] for chain in config["chains"].values())


def test_the_server_has_a_page_and_serves_three_libraries(config: dict[str, Any], stranger: Stranger) -> None:
    command = [stranger.python.parent / "hf-gateway", "serve", "--port", "0"]
    log = stranger.folder.with_name("server.log")
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, cwd=stranger.folder, env=stranger.environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), log.read_text()
            page = httpx.get(f"{url}/ui", follow_redirects=True, timeout=60, trust_env=False)
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            listed = httpx.get(f"{url}/v1/models", timeout=60, trust_env=False).json()["data"]
            assert {each["id"] for each in listed} >= set(config["chains"])
            assert stranger.clients(url) == ANSWERED
        finally:
            process.terminate()
    assert process.returncode == 0, log.read_text()


def test_the_chart_takes_that_file_as_it_is(config: dict[str, Any]) -> None:
    objects = render({"config": config})
    data = [
        each["data"]["hf-gateway.toml"] for each in of_kind(objects, "ConfigMap") if "hf-gateway.toml" in each["data"]
    ]
    assert [tomllib.loads(text)["chains"] for text in data] == [config["chains"]]
    assert [fault for each in objects for fault in problems(each, "1.37")] == []


def test_the_pod_serves_them_as_the_folder_did(config: dict[str, Any], stranger: Stranger) -> None:
    need("podman", "mmdebstrap", "bwrap", "setpriv", "nsenter")
    objects = render({"config": config, "server": {"port": free_port(), "preStopSeconds": 0}})
    pod = Pod(one(objects, "Deployment")["spec"]["template"], objects, built("plain"), {})
    try:
        pod.start()
        pod.wait_ready()
        done = pod.exec("hf-gateway", "keys", "create", "--name", "stranger", "--scopes", "all")
        assert done.returncode == 0, done.stderr
        url = f"http://127.0.0.1:{pod.port}"
        assert httpx.get(f"{url}/v1/models", trust_env=False).status_code == 401
        assert stranger.clients(url, key=done.stdout.split()[-1]) == ANSWERED
        assert pod.terminate()[0] == 0, pod.log
    finally:
        pod.kill()


def program(words: str) -> str:
    """Return the block of docs/programs.md that has these words."""
    page = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
    (found,) = [code for code in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if words in code]
    return str(found)


ASKED_BY_CELERY = """
from embedding import embed

print({len(each.get(timeout=120)) for each in [embed.delay(f"text {number}") for number in range(8)]})
"""


def test_the_tasks_of_the_page_are_run_by_a_celery_worker_that_forks(stranger: Stranger) -> None:
    with redis() as url:
        code = program("from celery").replace("redis://localhost:6379", url.removesuffix("/0"))
        (stranger.folder / "embedding.py").write_text(code, encoding="utf-8")
        command = [
            stranger.python,
            "-m",
            "celery",
            "--app",
            "embedding",
            "worker",
            "--pool",
            "prefork",
            "--concurrency",
            "2",
        ]
        log = stranger.folder.with_name("celery.log")
        with log.open("w") as written:
            worker = subprocess.Popen(
                [str(word) for word in command],
                cwd=stranger.folder,
                env=stranger.environment,
                stdout=written,
                stderr=written,
            )
            try:
                assert stranger.run(stranger.python, "-c", ASKED_BY_CELERY) == "{64}\n", log.read_text()
            finally:
                worker.terminate()
                worker.wait(60)


def test_the_app_of_the_page_is_served_by_gunicorn_which_loads_it_before_it_forks(stranger: Stranger) -> None:
    (stranger.folder / "web.py").write_text(program("def app("), encoding="utf-8")
    page = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^gunicorn .*$", page, re.MULTILINE)
    command = shlex.split(line.replace("127.0.0.1:8000", "127.0.0.1:0"))
    command[0] = str(stranger.python.with_name("gunicorn"))
    with subprocess.Popen(
        command, cwd=stranger.folder, env=stranger.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            listening = (re.search(r"Listening at: (\S+)", said) for said in process.stderr)
            url = next(found[1] for found in listening if found)
            asked = [httpx.get(f"{url}/?text{number}", timeout=60, trust_env=False) for number in range(8)]
            assert {(answer.status_code, len(answer.json())) for answer in asked} == {(200, 64)}
        finally:
            process.terminate()
            process.communicate(timeout=60)  # what it writes at its end needs a reader
    assert process.returncode == 0


ASKED_BY_STREAMLIT = """
from streamlit.testing.v1 import AppTest

app = AppTest.from_file("app.py", default_timeout=120).run()
assert not app.exception, app.exception
for text in ("Ships sail.", "Cats sleep."):  # each a rerun of the script
    app.text_input[0].set_value(text).run()
    assert not app.exception, app.exception
    print(app.markdown[0].value)
"""


def test_the_app_of_the_page_runs_in_streamlit(stranger: Stranger) -> None:
    (stranger.folder / "app.py").write_text(program("import streamlit"), encoding="utf-8")
    assert stranger.run(stranger.python, "-c", ASKED_BY_STREAMLIT) == "a vector of 64 numbers\n" * 2
