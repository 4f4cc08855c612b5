"""Chains that are ready for documents, of `hf-gateway quickstart` and `hf-gateway index`."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from hf_gateway.errors import visible
from hf_gateway.retrieval.splitting import Split, split_for
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from hf_gateway.values.kinds import kind_of


@contextlib.contextmanager
def ready_chain(build: Callable[[bool], EmbeddingGateway], question: str) -> Iterator[tuple[EmbeddingGateway, Split]]:
    """Yield a chain whose model is loaded, and how documents are cut for it.

    Args:
        build: makes the chain; is called with whether texts that are too long are truncated.
        question: is embedded to load the model.
    """
    with build(False) as gateway:
        gateway.embed([question], role="query")  # downloads the model's files with its tokenizer
        split = split_for(gateway)
        if split.exact:
            yield gateway, split
            return
    if any(kind_of(target.kind).has_model for target in gateway.targets):
        sys.stderr.write(
            f"the tokenizer of {visible(gateway.space.model)} is not on this machine: pieces are cut by an estimate, and "
            "text beyond the model's limit is cut off\n"
        )
    with build(True) as gateway:
        yield gateway, split
