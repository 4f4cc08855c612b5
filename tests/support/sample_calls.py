"""One call of every installed task, with what it uses, for what has to hold for all of them: ledger, budgets, metrics, doctor."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from hf_gateway import Gateway
from tests.servers.loopback import Loopback
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI

FORMS = ("blocking", "async")
MODEL = "test/model"


@dataclass(frozen=True)
class Sample:
    """A call of a task. method: its name, the async one's has an "a" before it; uses: units by the fields of `Usage`."""

    server: Callable[[], AbstractContextManager[Loopback]]
    path: str
    method: str
    arguments: tuple[Any, ...]
    uses: dict[str, int]
    kind: str = "openai"
    settings: dict[str, Any] = field(default_factory=dict)

    def gateway(self, task: str, server: Loopback) -> Any:
        """Build a chain of one target, which is the server."""
        return Gateway(MODEL, [f"{self.kind}:{server.url}"], task=task, **self.settings)

    def call(self, gateway: Any, form: str) -> Any:
        """Call, blocking or async."""
        if form == "async":
            return asyncio.run(getattr(gateway, f"a{self.method}")(*self.arguments))
        return getattr(gateway, self.method)(*self.arguments)


SAMPLES = {
    "embedding": Sample(
        lambda: FakeOpenAI(models=None),
        "/v1/embeddings",
        "embed",
        (["one", "two words"],),
        {"input_tokens": 7},
        settings={"check_space": False},
    ),
    "chat": Sample(
        lambda: FakeOpenAI(models=None),
        "/v1/chat/completions",
        "chat",
        ("Why?",),
        {"input_tokens": 1, "output_tokens": 3},
        settings={"max_tokens": 10},
    ),
    "rerank": Sample(
        lambda: FakeOpenAI(models=None), "/v1/rerank", "rerank", ("one", ["one", "two", "three"]), {"documents": 3}
    ),
    "image": Sample(lambda: FakeOpenAI(models=None), "/v1/images/generations", "generate", ("a cat",), {"images": 1}),
    "classification": Sample(
        lambda: FakeOpenAI(models=None), "/classify", "classify", (["one", "two"],), {"documents": 2}
    ),
    "sparse": Sample(
        lambda: FakeTEI(model_id=MODEL, pooling="splade"),
        "/embed_sparse",
        "embed",
        (["one", "two words"],),
        {"input_tokens": 7},
        kind="tei",
        settings={"check_space": False},
    ),
}
"""By the names of the tasks; a new task has a line here."""


def sample_of(task: str) -> Sample:
    """Return the call of a task."""
    assert task in SAMPLES, f"the task {task} has no call in tests/support/sample_calls.py"
    return SAMPLES[task]
