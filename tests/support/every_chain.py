"""A server that serves every route: a chain for each task, an index, a context with a template."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.chat import script
from tests.servers.labels import FakeToolkit
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway import Gateway
    from hf_gateway.retrieval.files import Passage
    from hf_gateway.retrieval.index import make_index

CONFIG = """
[chains.docs]
targets = ["hash:64"]

[chains.words]
task = "sparse"
targets = ["bm25"]

[chains.sorter]
task = "rerank"
targets = ["lexical"]

[chains.talk]
task = "chat"
model = "owner/talk"
targets = ["openai:{openai}"]

[chains.draw]
task = "image"
model = "owner/draw"
targets = ["openai:{openai}"]

[chains.judge]
task = "classification"
model = "owner/judge"
targets = ["endpoint:{toolkit}"]

[server.aliases]
"text-embedding-3-small" = "docs"

[server.indexes]
manual = "{folder}/manual"

[server]
contexts = "{folder}/contexts"
{more}
"""
BOT = "SupportBot"
TEMPLATE = "{% for passage in passages %}{{ passage.text }}\n{% endfor %}Customer: {{ user_input | default('') }}"


@dataclass(frozen=True)
class EveryChain:
    """What the chains lead to, and the configuration that has them."""

    config: str
    """The text of hf-gateway.toml."""
    openai: FakeOpenAI
    """The target of chat and images."""
    toolkit: FakeToolkit
    """The target of labels."""


@contextmanager
def every_chain(folder: Path, more: str = "") -> Iterator[EveryChain]:
    """Start the targets, and write the index and the context.

    Args:
        folder: where.
        more: lines of `[server]`.
    """
    with Gateway(targets=["hash:64"]) as gateway:
        make_index(folder / "manual", [Passage("a.md", "zebras"), Passage("b.md", "ferries")], gateway)
    place = folder / "contexts" / BOT / "prompts" / BOT
    place.mkdir(parents=True)
    (place / "agent_response.md").write_text(TEMPLATE, encoding="utf-8")
    with ExitStack() as stack:
        openai = stack.enter_context(FakeOpenAI(models=None, brain=script("One two three.")))
        toolkit = stack.enter_context(FakeToolkit())
        names = {"openai": openai.url, "toolkit": toolkit.url, "folder": folder, "more": more}
        yield EveryChain(CONFIG.format(**names), openai, toolkit)
