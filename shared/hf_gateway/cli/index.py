"""`hf-gateway index`: make an index of passages, for the server's retrieval."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from hf_gateway.cli.chosen_gateway import gateway_of
from hf_gateway.cli.documents import SUFFIXES, DocumentReader
from hf_gateway.cli.output import print_json
from hf_gateway.cli.splitting import ready_chain
from hf_gateway.configuration.chains import configured_chains
from hf_gateway.errors import ConfigError, InvalidRequest, visible
from hf_gateway.retrieval.splitting import split_documents
from hf_gateway.runtime.progress_bar import progress_bar
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.server import ServerSettings
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from hf_gateway.values.wording import quantity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILES", help="files or folders: text, Markdown, HTML, PDF"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of the index: new, or empty")
    parser.add_argument(
        "--chain", help="the chain of the config file that embeds; by default the server's for requests without a model"
    )


def run(arguments: argparse.Namespace) -> int:
    """Split the files into passages, embed them and write the index; return 0 on success."""
    from hf_gateway.retrieval.files import Passage, arrow, refuse_index
    from hf_gateway.retrieval.index import make_index

    refuse_index(arguments.out)
    arrow()  # before anything is embedded
    documents = []
    for path in arguments.files:
        if not path.exists():
            raise InvalidRequest(f"{path}: no such file or folder")
        reader = DocumentReader(path)
        documents += [(_source(document.source, path), document.text) for document in reader.documents()]
        for line in reader.account():
            sys.stderr.write(line + "\n")
    if not documents:
        raise InvalidRequest(f"the files contain no text that could be indexed ({', '.join(SUFFIXES)} are read)")
    with ready_chain(lambda truncate: _gateway(arguments, truncate), "a passage") as (gateway, split):
        pieces = split_documents(documents, split.max_tokens, split.overlap, split.tokens)
        with progress_bar("indexing", counts_bytes=False) as show:
            make_index(arguments.out, [Passage(*piece) for piece in pieces], gateway, show)
        made = {
            "index": str(arguments.out),
            "documents": len({source for source, _ in documents}),
            "passages": len(pieces),
            "model": gateway.model,
            "space": gateway.space.id,
        }
    if arguments.json:
        print_json(made)
    else:
        counts = f"{quantity(len(pieces), 'passage')} of {quantity(len({name for name, _ in documents}), 'document')}"
        sys.stdout.write(f"{visible(str(arguments.out))}: {counts}, space {made['space']}\n")
    return 0


def _source(file: str, path: Path) -> str:
    """Return the name of a document for those who are shown its passages: without the folders above what was named.

    Args:
        file: the document's path.
        path: the file or folder that was named.
    """
    return Path(os.path.relpath(os.path.abspath(file), os.path.dirname(os.path.abspath(path)))).as_posix()  # noqa: PTH100, PTH120 - links stay


def _gateway(arguments: argparse.Namespace, truncate: bool) -> EmbeddingGateway:
    """Return the chain that the options name, or the one that the server would take."""
    if arguments.chain or arguments.model or arguments.targets:
        return gateway_of(EmbeddingGateway, arguments, {"truncate": truncate or None})
    settings = _default_settings(arguments.config)
    changes = {"truncate": True} if truncate else {}
    made: Any = EmbeddingGateway.from_settings(settings.model_copy(update=changes))
    return made  # type: ignore[no-any-return]


def _default_settings(config: str | None) -> NamedSettings:
    by_task: dict[str, dict[str, NamedSettings]] = {}
    for name, settings in configured_chains(config):
        by_task.setdefault(settings.task, {})[name] = settings
    found = by_task.get("embedding", {})
    default = ServerSettings.load(config).defaults.get("embedding")
    if default in found:
        return found[default]
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise ConfigError(
            "the configuration has no chain for embeddings: name a model by --model, or targets by --targets"
        )
    raise ConfigError(f"there are several chains for embeddings: name one by --chain: {', '.join(found)}")
