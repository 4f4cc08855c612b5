"""What pages show of a command's output is what it prints: each word and line; times, sizes and scores by their form."""

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from tests.cli.test_usage_cli import filled, row
from tests.project.test_page_blocks import PAGES, PRINTED, blocks
from tests.servers.hub import Listed, ReadHub
from tests.servers.hub_commits import FakeHubCommits, Repo, User
from tests.servers.loopback import dead_url
from tests.servers.router import FakeRouter
from tests.support.keyrings import KINDS, real_keyring
from tests.support.publishing import adapter
from tests.support.shown import LOOPBACK, SIZE, TIME, assert_shown, shown_after, shown_block

PUBLISH = (
    "hf-gateway hub publish ad ada/polite-tiny-chat --license apache-2.0 --base-model acme/tiny-chat "
    "--dataset acme/greetings --metric accuracy=0.91 --training training.toml --dry-run"
)
HERE = {
    "costs.md": [
        "hf-gateway usage",
        "hf-gateway models list llama-3.2",
        "hf-gateway budgets set acme --per-day 10 --per-month 200",
        "hf-gateway models list",
    ],
    "hub.md": [
        "hf-gateway hub search llama --sort likes",
        "hf-gateway hub check sentence-transformers/all-MiniLM-L6-v2",
        PUBLISH,
        "hf-gateway login --token-stdin",
    ],
    "quickstart.md": ["LangChain: 79 documents", "chain given (from the command line)"],
}
"""Page → the commands whose output it shows, or the beginning of an output without one: all are compared in this file."""
ELSEWHERE = {
    "configuration.md": ["hf-gateway config check broken.toml"],  # test_page_blocks.py
    "server.md": ["gateway.example.org {"],  # a proxy's configuration
}
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
CHAT = "meta-llama/Llama-3.1-8B-Instruct"
LISTED = {
    "meta-llama/Meta-Llama-3-8B-Instruct": Listed(
        pipeline_tag="text-generation",
        gated="manual",
        tags=("license:llama3",),
        downloads=1_127_302,
        likes=3_874,
        modified="2024-09-27T15:52:39.000Z",
    ),
    CHAT: Listed(
        pipeline_tag="text-generation",
        gated="manual",
        tags=("license:llama3.1",),
        downloads=5_795_728,
        likes=3_763,
        modified="2024-09-25T17:00:57.000Z",
    ),
    MINILM: Listed(
        declared={"model.safetensors": 90_868_376, "tokenizer.json": 466_247, "vocab.txt": 231_508},
        pipeline_tag="sentence-similarity",
        library_name="sentence-transformers",
        tags=("sentence-transformers", "license:apache-2.0", "text-embeddings-inference"),
        card={"license": "apache-2.0"},
        config={"architectures": ["BertModel"], "model_type": "bert"},
        parameters={"I64": 512, "F32": 22_713_216},
        providers=[{"provider": "hf-inference", "status": "live", "task": "sentence-similarity", "providerId": MINILM}],
    ),
}
"""What the Hub says of the models that docs/hub.md shows, as it was recorded, as far as it counts there."""
OFFERS: dict[str, list[dict[str, Any]]] = {
    "meta-llama/Llama-3.2-1B-Instruct": [{"provider": "novita", "context_length": 131_000}],
    "meta-llama/Llama-3.2-3B-Instruct": [
        {"provider": "hyperbolic", "context_length": 131_072, "pricing": {"input": 0.1, "output": 0.1}},
        {
            "provider": "novita",
            "context_length": 32_768,
            "pricing": {"input": 0.024, "output": 0.04},
            "supports_tools": True,
        },
        {
            "provider": "together",
            "context_length": 131_072,
            "pricing": {"input": 0.06, "output": 0.06},
            "supports_tools": True,
            "supports_structured_output": True,
        },
    ],
}
"""Model → what the router's catalogue in docs/costs.md says of its providers."""

MOMENT = r"\d{4}-\d\d-\d\d(?: \d\d:\d\d)?"
VERSIONS = r"\b[\d.]+\d\b, platform \w+ \w+"
Printed = Callable[..., str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Run a command of a page in this process; gives what it prints."""

    def run(command: str) -> str:
        assert main(shlex.split(command)[1:]) == 0, capsys.readouterr()
        return capsys.readouterr().out

    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadHub]:
    with ReadHub(LISTED) as server, FakeRouter() as router:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        yield server


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    monkeypatch.setenv("HF_GATEWAY_LEDGER", url)
    return url


def shown_outputs(page: Path) -> Iterator[str]:
    """Yield the commands with an output behind them, and the beginnings of outputs without a command."""
    after_python = {parameters.values[1] for parameters in PRINTED}
    for language, content in blocks(page):
        if language or content in after_python:
            continue
        asked = re.split(r"^\$ ", content.replace("\\\n", ""), flags=re.MULTILINE)
        for part in asked[1:]:
            command, _, output = part.partition("\n")
            if output.strip():
                yield re.sub(r"\s+", " ", command)
        if len(asked) == 1 and not re.match(r"(hf-gateway|pip|python|make|source|cd|npm) ", content):
            yield content.partition("\n")[0]


def test_every_output_that_a_page_shows_is_compared_with_what_is_printed() -> None:
    named = {page: [*HERE.get(page, []), *ELSEWHERE.get(page, [])] for page in {*HERE, *ELSEWHERE}}
    found = {page.name: outputs for page in PAGES if (outputs := list(shown_outputs(page)))}
    assert found.keys() == named.keys()
    for page, outputs in found.items():
        assert len(outputs) == len(named[page]), page
        assert all(any(output.startswith(each) for each in named[page]) for output in outputs), page


def test_search(hub: ReadHub, printed: Printed) -> None:
    command = HERE["hub.md"][0]
    assert_shown(printed(command), shown_after("hub.md", command))


def test_check(hub: ReadHub, printed: Printed) -> None:
    command = HERE["hub.md"][1]
    assert_shown(printed(command), shown_after("hub.md", command), (SIZE, r"(?<=^  GPU        ).*"))


def test_publish(hub: ReadHub, printed: Printed, tmp_path: Path) -> None:
    adapter(tmp_path / "ad", base=str(tmp_path / "models" / "tiny-chat"))
    (tmp_path / "training.toml").write_text("epochs = 3\n")
    assert_shown(printed(PUBLISH), shown_after("hub.md", PUBLISH), (LOOPBACK, r"(?<= )[\d,]+$"))


@pytest.mark.parametrize("kind", KINDS)
def test_login(kind: str, printed: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = HERE["hub.md"][3]
    token = "hf_AdasToken0123456789abcdef"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{token}\n"))
    with FakeHubCommits({token: User("ada")}) as server, real_keyring(kind, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert_shown(printed(command), shown_after("hub.md", command), (LOOPBACK, r"\(keyring[\w.]*\)"))


def calls() -> list[dict[str, Any]]:
    """Return the rows of a ledger that docs/costs.md shows a report of."""
    chat = {"model": CHAT, "provider": "novita", "target": "hf:novita", "cost_usd": Decimal(0)}
    small = {"model": "Qwen/Qwen2.5-7B-Instruct", "provider": "vllm", "target": "openai:vllm", "cost_usd": Decimal(0)}
    embedding = {"model": MINILM, "provider": "tei", "target": "tei:tei", "task": "embedding", "cost_usd": Decimal(0)}
    found: list[dict[str, Any]] = []

    def call(attempts: list[dict[str, Any]], **request: Any) -> None:
        asked = row(**{name: value for name, value in attempts[-1].items() if name != "cost_usd"}, **request)
        found.extend([asked, *(row(asked["id"], **each) for each in attempts)])

    def failed(common: dict[str, Any], name: str) -> dict[str, Any]:
        tokens = {"input_tokens": 0, "output_tokens": 0}
        cost = {"cost_usd": None} if name == "StreamBroken" else {}
        return {**common, **tokens, **cost, "status": "failed", "error_class": name}

    errors = {"StreamBroken": 5, "AuthenticationFailed": 4, "Overloaded": 4, "RateLimited": 4, "ConnectFailed": 3}
    failures = [failed(chat, name) for name, count in errors.items() for _ in range(count)]
    for each in failures[:3]:
        call([each])
    answered = {**chat, "input_tokens": 32, "output_tokens": 34}
    for each in failures[3:]:
        call([each, answered], fallback=True)
    for _ in range(179):
        call([answered])
    call([{**chat, "input_tokens": 198, "output_tokens": 200, "cost_usd": Decimal("0.001208")}])
    for name in ("ConnectFailed", "ConnectFailed", "RateLimited", "RateLimited"):
        call([failed(small, name)])
    for _ in range(96):
        call([{**small, "input_tokens": 3, "output_tokens": 5}])
    for _ in range(52):
        call([{**embedding, "input_tokens": 97, "texts": 1}])
    call([{**embedding, "input_tokens": 90, "texts": 1}])
    found += [row(task="embedding", texts=1, cached_texts=1, cost_usd=Decimal(0)) for _ in range(47)]
    return found


def test_usage(kept: str, printed: Printed) -> None:
    command = HERE["costs.md"][0]
    filled(kept, calls())
    assert_shown(printed(command), shown_after("costs.md", command), (TIME, r"^sqlite:///.*?\.sqlite"))


def test_prices_of_the_router(kept: str, printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    command = HERE["costs.md"][1]
    catalogue = [
        {
            "id": model,
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "providers": [{"status": "live", **offer} for offer in offers],
        }
        for model, offers in OFFERS.items()
    ]
    with FakeRouter(catalogue=catalogue) as router:
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        printed("hf-gateway models refresh")
    assert_shown(printed(command), shown_after("costs.md", command), (MOMENT,))


def test_prices_of_a_guide(kept: str, printed: Printed) -> None:
    command = HERE["costs.md"][3]
    assert_shown(printed(command), shown_after("costs.md", command))


def test_budgets(kept: str, printed: Printed) -> None:
    command = HERE["costs.md"][2]
    assert_shown(printed(command), shown_after("costs.md", command), (MOMENT,))


def test_doctor(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may listen at the target of the page, and something does on many machines: another address stands for it."""
    address, url = "http://localhost:8080", dead_url()
    command = f"hf-gateway doctor --model all-MiniLM-L6-v2 --targets hf,tei:{address},local"
    assert ("sh", f"{command}\n") in blocks(next(page for page in PAGES if page.name == "quickstart.md"))
    with FakeHubCommits({}) as server:
        server.repos[MINILM] = Repo()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        found = printed(command.replace(address, url)).replace(url, address)
    found = found.replace(server.url, "https://huggingface.co")
    found = re.sub(r"^on this machine\n(?: .*\n)+\n", "", found, flags=re.MULTILINE)  # what other tests have left
    assert_shown(found, shown_block("quickstart.md", "chain given"), (r"(?<=package: ).*(?=/site-packages/)", VERSIONS))


@pytest.mark.slow
@pytest.mark.xdist_group("torch")
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="its documents are the language reference of this Python")
def test_quickstart() -> None:
    """Pieces with the same score stand in any order."""
    done = subprocess.run(
        [sys.executable, "-m", "hf_gateway", "quickstart"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    varying = (TIME, r"\b[\d,]+(?= documents| pieces| tokens| vectors)", r"\b0\.\d{3}\b", r"\btypesseq(?:-mutable)?\b")
    assert_shown(done.stdout, shown_block("quickstart.md", "LangChain: "), varying)
