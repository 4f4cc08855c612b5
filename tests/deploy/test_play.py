"""The rendered Deployment and Job are played: the migration first, two pods behind a switch, every surface, a rolling restart."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from tests.deploy.chart import of_kind, one, render
from tests.deploy.images import built, need
from tests.deploy.pods import Pod
from tests.deploy.services import free_port, model_server, postgresql, redis
from tests.deploy.tcp_switch import Switch

SECRETS_NAME, TOKEN = "gateway-urls", "hf_example"
CHAT = [{"role": "user", "content": "Hello"}]
CLIENTS_COUNT = 4
SEEN = """
id -u; id -g; grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /opt/x /etc/hf-gateway/x; tr '\\0' ' ' < /proc/1/cmdline
"""
PROMPTS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "prompts"},
    "data": {"bot": "Say {{ `{{ user_input }}` }}"},
}
PROMPT_ITEM = {"key": "bot", "path": "SupportBot/prompts/SupportBot/agent_response.md"}


class Release:
    """One release of the chart: its pods, behind a switch."""

    def __init__(self, model: str, secrets: dict[str, dict[str, str]]) -> None:
        """Set where the chat model is, and what the Secrets hold."""
        self.secrets, self.switch = secrets, Switch()
        self.pods: list[Pod] = []
        self.made: list[Pod] = []
        self.chains: dict[str, Any] = {
            "docs": {"targets": ["hash:64"]},
            "talk": {"task": "chat", "model": "owner/chat", "targets": [f"openai:{model}"]},
            "order": {"task": "rerank", "targets": ["lexical"]},
        }
        self.aliases: dict[str, str] = {}

    def objects(self, port: int) -> list[dict[str, Any]]:
        """Render it; pods share the machine's network here, so each has a port of its own."""
        return render(
            {
                "config": {"chains": self.chains, "server": {"aliases": self.aliases, "contexts": "/mnt"}},
                "extraObjects": [PROMPTS],
                "extraVolumes": [{"name": "contexts", "configMap": {"name": "prompts", "items": [PROMPT_ITEM]}}],
                "extraVolumeMounts": [{"name": "contexts", "mountPath": "/mnt", "readOnly": True}],
                "secrets": {"HF_TOKEN": TOKEN},
                "database": {"existingSecret": SECRETS_NAME, "key": "database"},
                "redis": {"existingSecret": SECRETS_NAME, "key": "redis"},
                "server": {"port": port, "preStopSeconds": 2, "grace": 20},
            }
        )

    def pod(self, kind: str = "Deployment") -> Pod:
        """Return a pod that is not started."""
        objects = self.objects(free_port())
        made = Pod(one(objects, kind)["spec"]["template"], objects, built("plain"), self.secrets)
        self.made.append(made)
        return made

    def add(self) -> Pod:
        """Start a pod, and send it requests once it is ready."""
        made = self.pod()
        made.start()
        made.wait_ready()
        self.pods.append(made)
        self.switch.ports.append(made.port)
        return made

    def remove(self, pod: Pod) -> int:
        """End a pod; requests go to it until a moment after its end has begun, as endpoints change in a cluster."""
        threading.Timer(0.5, self.switch.ports.remove, [pod.port]).start()
        self.pods.remove(pod)
        return pod.terminate()[0]

    def close(self) -> None:
        """End everything."""
        self.switch.close()
        for each in self.made:
            each.kill()


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    need("podman", "mmdebstrap", "bwrap", "setpriv", "nsenter")
    built("plain")
    with postgresql() as database, redis() as limits, model_server() as model, contextlib.ExitStack() as stack:
        made = Release(model, {SECRETS_NAME: {"database": database, "redis": limits}})
        stack.callback(made.close)
        early = made.pod()
        early.start()
        assert early.process is not None
        assert early.process.wait(300) == 2, early.log
        assert "hf-gateway db upgrade" in early.log
        job = made.pod("Job")
        assert job.run_to_the_end() == 0, job.log
        for _ in range(2):
            made.add()
        yield made


@pytest.fixture(scope="module")
def key(release: Release) -> str:
    done = release.pods[0].exec("hf-gateway", "keys", "create", "--name", "administrator", "--scopes", "all")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.fixture
def client(release: Release, key: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=release.switch.url, headers=headers, timeout=60, trust_env=False) as made:
        yield made


REQUESTS: dict[str, tuple[str, str, Any, Callable[[httpx.Response], bool]]] = {
    "operation": ("GET", "/metrics", None, lambda answer: "hf_gateway_server_requests_under_way" in answer.text),
    "openai": (
        "POST",
        "/v1/chat/completions",
        {"messages": CHAT},
        lambda a: a.json()["choices"][0]["message"]["content"] == "Hello there",
    ),
    "administration": ("GET", "/admin/status", None, lambda answer: len(answer.json()["chains"]) == 3),
    "page": ("GET", "/ui", None, lambda answer: "<!doctype html>" in answer.text.lower()),
    "text-embeddings-inference": (
        "POST",
        "/rerank",
        {"query": "a b", "texts": ["a b", "c"]},
        lambda a: a.json()[0]["index"] == 0,
    ),
    "hugging-face": (
        "POST",
        "/models/docs/pipeline/feature-extraction",
        {"inputs": "A text"},
        lambda a: len(a.json()) == 64,
    ),
    "huggingface": (
        "POST",
        "/huggingface/embedding",
        {"text": "A text"},
        lambda answer: answer.json()["dimensions"] == 64,
    ),
    "ollama": ("POST", "/api/embed", {"input": "A text"}, lambda answer: len(answer.json()["embeddings"][0]) == 64),
    "huggingface-inference": (
        "POST",
        "/functions/v1/huggingface-inference",
        {"modelId": "docs", "task": "feature-extraction", "inputs": "A text"},
        lambda answer: answer.json()["success"] is True,
    ),
    "guide-c": (
        "POST",
        "/api/v1/chat",
        {"context": "SupportBot", "component": "SupportBot", "data": {"user_input": "hello"}},
        lambda answer: answer.json() == {"rendered": "Hello there"},
    ),
}
"""One request of each surface, and what its answer has."""


def test_no_surface_is_left_out(client: httpx.Client) -> None:
    assert {each["name"] for each in client.get("/openapi.json").json()["tags"]} == set(REQUESTS)


@pytest.mark.parametrize("surface", REQUESTS)
def test_every_surface_answers(client: httpx.Client, surface: str) -> None:
    method, path, body, is_right = REQUESTS[surface]
    answer = client.request(method, path, json=body, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    assert is_right(answer), answer.text


def test_a_stream_arrives(client: httpx.Client) -> None:
    with client.stream("POST", "/v1/chat/completions", json={"messages": CHAT, "stream": True}) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


def test_without_a_key_nothing_is_answered(release: Release) -> None:
    assert httpx.get(f"{release.switch.url}/v1/models", trust_env=False).status_code == 401


def test_limits_hold_over_both_pods(release: Release, client: httpx.Client) -> None:
    """The key may ask three times a minute, and either pod may answer: Redis counts."""
    few = client.post("/admin/keys", json={"name": "few", "scopes": ["read"], "requests_per_minute": 3}).json()["key"]
    codes = []
    for pod in [*release.pods, *release.pods]:
        headers = {"authorization": f"Bearer {few}"}
        codes.append(httpx.get(f"http://127.0.0.1:{pod.port}/v1/models", headers=headers, trust_env=False).status_code)
    assert codes == [200, 200, 200, 429]
    assert all(
        httpx.get(f"http://127.0.0.1:{pod.port}/readyz", trust_env=False).text == "ready" for pod in release.pods
    )


def test_the_manifest_holds_in_the_container(release: Release) -> None:
    pod = release.pods[0]
    shown = pod.exec(
        "sh",
        "-c",
        SEEN,
    )
    lines = shown.stdout.splitlines()
    assert lines[:2] == ["10001", "0"]
    assert lines[2].split()[1] == "0000000000000000"
    assert lines[3].split()[1] == "1"
    assert shown.stderr.count("Read-only file system") == 2
    assert "hf-gateway serve" in lines[-1]


def test_a_token_reaches_the_process_and_no_manifest(release: Release) -> None:
    objects = release.objects(8000)
    assert release.pods[0].exec("printenv", "HF_TOKEN").stdout.strip() == TOKEN
    assert TOKEN not in json.dumps([each for each in objects if each["kind"] != "Secret"])
    assert len(of_kind(objects, "Secret")) == 1


def test_probes_pass(release: Release) -> None:
    assert all(pod.probe(kind) for pod in release.pods for kind in ("startup", "readiness", "liveness"))


class Load:
    """Clients that ask without a pause, each request over a connection of its own, whole answers and streams by turns."""

    def __init__(self, release: Release, key: str) -> None:
        """Set where to ask."""
        self.url, self.headers = release.switch.url, {"authorization": f"Bearer {key}"}
        self.served, self.failed = 0, []  # type: int, list[str]
        self._end, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS_COUNT)]

    def __enter__(self) -> "Load":
        """Begin."""
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End after the requests under way."""
        self._end.set()
        for each in self._threads:
            each.join(120)

    def wait_for(self, count: int) -> None:
        """Wait for so many more answers."""
        until, wanted = time.monotonic() + 120, self.served + count
        while self.served < wanted and time.monotonic() < until:
            time.sleep(0.05)
        assert self.served >= wanted, self.failed[:5]

    def _ask(self, turn: int) -> None:
        while not self._end.is_set():
            turn += 1
            problem = ""
            try:
                if turn % 2:
                    answer = httpx.post(
                        f"{self.url}/v1/embeddings",
                        json={"input": f"Text {turn}"},
                        headers=self.headers,
                        timeout=60,
                        trust_env=False,
                    )
                else:
                    body = {"messages": CHAT, "stream": True}
                    answer = httpx.post(
                        f"{self.url}/v1/chat/completions", json=body, headers=self.headers, timeout=60, trust_env=False
                    )
                    problem = "" if answer.text.endswith("data: [DONE]\n\n") else "the stream broke off"
                if answer.status_code != 200:
                    problem = f"{answer.status_code}: {answer.text[:200]}"
            except httpx.HTTPError as error:
                problem = repr(error)
            with self._lock:
                if problem:
                    self.failed.append(problem)
                else:
                    self.served += 1


def test_a_rolling_restart_fails_no_request(release: Release, key: str) -> None:
    """With maxSurge 1 and maxUnavailable 0, as the manifest says: a new pod first, then an old one ends."""
    strategy = one(release.objects(8000), "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}
    release.aliases["text-embedding-3-small"] = "docs"
    old = list(release.pods)
    with Load(release, key) as load:
        load.wait_for(20)
        for each in old:
            release.add()
            load.wait_for(10)
            assert release.remove(each) == 0, each.log
            load.wait_for(10)
    assert load.failed == []
    assert not set(old) & set(release.pods)
    body = {"input": "A text", "model": "text-embedding-3-small"}
    answer = httpx.post(
        f"{release.switch.url}/v1/embeddings", json=body, headers=load.headers, timeout=60, trust_env=False
    )
    assert answer.status_code == 200, answer.text


def test_the_ledger_has_every_row(release: Release) -> None:
    """The last test: all pods end, and write what they have."""
    for pod in list(release.pods):
        assert release.remove(pod) == 0, pod.log
        assert "Traceback" not in pod.log
    with psycopg.connect(release.secrets[SECRETS_NAME]["database"]) as connection:
        tables = connection.execute(
            "select table_name from information_schema.tables where table_schema = 'public'"
        ).fetchall()
        (rows,) = connection.execute("select count(*) from llm_observations").fetchone() or (0,)
    assert rows >= 60, tables
