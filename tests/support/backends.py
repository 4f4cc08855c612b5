"""Every backend with a server on loopback behind it, for suites that run against all of them."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.servers import tokens, unit_vectors
from tests.servers.loopback import Loopback, Recorded, Reply
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import MINILM, FakeHub, FakeRouter, HubModel
from tests.servers.tei import FakeTEI

BACKENDS = (
    "local",
    "tei",
    "tei-openai",
    "hf",
    "hf-scaleway",
    "hf-token-vectors",
    "openai-float",
    "openai-base64",
    "ollama",
    "endpoint-tei",
    "endpoint-toolkit",
    "endpoint-token-vectors",
    "hash",
    "chain",
)


class Toolkit(Loopback):
    """The inference toolkit's container: one POST route, no `/info`.

    It wraps sentence-transformers' vectors in an object; a plain transformers model gives [n][1][tokens][dim].
    """

    def __init__(self, *, token_vectors: bool = False) -> None:
        self.token_vectors = token_vectors
        super().__init__()

    def handle(self, request: Recorded) -> Reply:
        if (request.method, request.path) != ("POST", "/"):
            return Reply(404, {"error": "Not Found"})
        texts = request.json["inputs"]
        if self.token_vectors:
            return Reply(200, [[unit_vectors(tokens(text))] for text in texts])
        return Reply(200, {"embeddings": unit_vectors(texts)})


@contextmanager
def every_backend() -> Iterator[tuple[dict[str, dict[str, Any]], dict[str, str]]]:
    """Start a server for each kind; gives what to pass to a class for each of BACKENDS, and the environment for it."""
    served = [("hf-inference", MINILM), ("scaleway", "all-minilm-l6-v2")]
    mapping = [
        {"provider": who, "providerId": name, "status": "live", "task": "feature-extraction"} for who, name in served
    ]
    with ExitStack() as stack:
        start = stack.enter_context
        hub = start(FakeHub({MINILM: HubModel(providers=mapping)}))
        tei, openai, ollama, toolkit = start(FakeTEI()), start(FakeOpenAI()), start(FakeOllama()), start(Toolkit())
        router, nested = start(FakeRouter()), start(FakeRouter(nested=True))
        token_vectors, locked = start(Toolkit(token_vectors=True)), start(FakeTEI(api_key="nobody knows"))
        keyed = {"kind": "hf", "url": router.url, "credential": "env:HF_TOKEN"}
        targets: dict[str, list[Any]] = {
            "local": ["local"],
            "tei": [f"tei:{tei.url}"],
            "tei-openai": [{"kind": "tei", "url": tei.url, "options": {"openai": True}}],
            "hf": [keyed],
            "hf-scaleway": [{**keyed, "provider": "scaleway"}],
            "hf-token-vectors": [{**keyed, "url": nested.url}],
            "openai-float": [f"openai:{openai.url}"],
            "openai-base64": [{"kind": "openai", "url": openai.url, "options": {"encoding": "base64"}}],
            "ollama": [{"kind": "ollama", "url": ollama.url}],
            "endpoint-tei": [f"endpoint:{tei.url}"],
            "endpoint-toolkit": [f"endpoint:{toolkit.url}"],
            "endpoint-token-vectors": [f"endpoint:{token_vectors.url}"],
            "hash": ["hash"],
            "chain": [f"tei:{locked.url}", f"openai:{openai.url}"],
        }
        assert tuple(targets) == BACKENDS
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test"}
        yield {name: {"model": MINILM, "targets": chain} for name, chain in targets.items()}, environment


def model_folder(folder: Path, prompts: dict[str, str]) -> str:
    """Write what a sentence-transformers model says of itself, without weights."""
    (folder / "1_Pooling").mkdir(parents=True)
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    modules.append({"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"})
    for name, content in {
        "config.json": {"hidden_size": 384},
        "modules.json": modules,
        "config_sentence_transformers.json": {"prompts": prompts},
        "1_Pooling/config.json": {"pooling_mode": "mean"},
    }.items():
        (folder / name).write_text(json.dumps(content))
    return str(folder)
