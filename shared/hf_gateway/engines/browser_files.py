"""The files of a model for embeddings or for labels as transformers.js reads them in a browser, made of the model's own weights.

They are made once for each content of a model, and kept below HF_GATEWAY_HOME.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hf_gateway.engines.converted import identity
from hf_gateway.engines.graphs import TOKEN_AXES
from hf_gateway.engines.labelled import LABEL_AXES, text_limit
from hf_gateway.engines.layout import Layout, read_layout, read_plain_layout
from hf_gateway.engines.networks.browser_onnx import LOGITS, TOKENS, BrowserWriter
from hf_gateway.engines.networks.build import BuildGraph, build_network, read_config
from hf_gateway.engines.networks.heads import build_labelled
from hf_gateway.engines.networks.safetensors import MappedFiles, read_tensors
from hf_gateway.engines.saved_space import read_space
from hf_gateway.engines.sources import ModelFiles, read_json
from hf_gateway.engines.tokenising import check_files
from hf_gateway.errors import EngineFailed
from hf_gateway.storage.files import home, interprocess_lock

VERSION = 1
"""Version of the files; those of another version are made again."""
GRAPH = "onnx/model_quantized.onnx"
"""The graph, by the name that transformers.js gives to the dtype `q8`."""
NAMES = ("config.json", "tokenizer.json", "tokenizer_config.json", GRAPH)
"""The files; a browser may ask for further ones of a model, and does without."""
MAX_BYTES = 512 * 2**20
"""Maximum size of the graph, which a browser keeps in memory."""
_POOLING = {"mean": "mean", "cls": "cls", "lasttoken": "last_token"}
"""sentence-transformers' modes → transformers.js' names of them."""


@dataclass(frozen=True)
class BrowserFile:
    """A file for browsers."""

    path: Path
    """Where it is."""
    sha256: str
    """Digest of its bytes, in hexadecimal."""


def browser_files(files: ModelFiles) -> Mapping[str, BrowserFile]:
    """Return the files of an embedding model for browsers by name, made if they are not there yet. Blocks: at first for seconds.

    Raises:
        EngineFailed: the model's structure or family is not supported here, or it is too large for a browser.
        ConfigError: the model's files are damaged.
        OSError: the files cannot be written.
    """
    layout = read_layout(files)
    about = {"pooling": _pooling(layout), "normalize": "normalize" in layout.after, "dimension": layout.cut}
    return _stored(f"{identity(files)}-{VERSION}", lambda: _token_contents(files, layout, about))


def browser_label_files(files: ModelFiles) -> Mapping[str, BrowserFile]:
    """Return the files of a model for labels of texts for browsers by name; otherwise as `browser_files`."""
    return _stored(f"{identity(files)}-labels-{VERSION}", lambda: _label_contents(files))


def _stored(name: str, contents: Callable[[], Mapping[str, bytes]]) -> Mapping[str, BrowserFile]:
    """Return the files of a folder, whose contents are made if it is not there."""
    folder = home() / "browser-models" / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with interprocess_lock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _write(contents(), folder)
    digests = json.loads((folder / "sha256.json").read_bytes())
    return {name: BrowserFile(folder / name, digests[name]) for name in NAMES}


def _pooling(layout: Layout) -> str:
    """Return transformers.js' name of the pooling. Raises EngineFailed for steps that it does not have."""
    if len(layout.pooling) != 1 or layout.pooling[0] not in _POOLING:
        raise EngineFailed(f"a browser cannot pool its token vectors: {'+'.join(layout.pooling)}")
    if any(each != "normalize" for each in layout.after):
        raise EngineFailed("it has layers after its pooling, which a browser does not compute")
    if layout.lowercase:
        raise EngineFailed("it lowercases texts before its tokenizer, which a browser does not")
    return _POOLING[layout.pooling[0]]


def _write(contents: Mapping[str, bytes], folder: Path) -> None:
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    # What a killed process left: no other one works there, since this one has the lock.
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "onnx").mkdir(parents=True)
    try:
        digests = {}
        for name, data in contents.items():
            (unfinished / name).write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
        (unfinished / "sha256.json").write_text(json.dumps(digests), encoding="utf-8")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _token_contents(files: ModelFiles, layout: Layout, about: Mapping[str, Any]) -> dict[str, bytes]:
    limit = read_space(lambda name: read_json(files.path / name), "").max_tokens
    graph = _graph(files.path / layout.transformer, build_network, TOKEN_AXES, TOKENS)
    return _contents(check_files(files.path, layout), about, limit, graph)


def _label_contents(files: ModelFiles) -> dict[str, bytes]:
    layout = read_plain_layout(files)
    tokenizer = check_files(files.path, layout)
    config = read_config(files.path)
    about = {"labels": config.labels(), "problem_type": config.values.get("problem_type")}
    limit = text_limit(tokenizer, layout)
    return _contents(tokenizer, about, limit, _graph(files.path, build_labelled, LABEL_AXES, LOGITS))


def _graph(folder: Path, build: BuildGraph, axes: Sequence[str], output: str) -> bytes:
    """Return the graph of a network whose files are in a folder."""
    maps, writer = MappedFiles(), BrowserWriter()
    network = build(folder, writer, partial(read_tensors, maps=maps))
    graph = writer.model(network, axes, output)
    maps.check()
    if len(graph) > MAX_BYTES:
        raise EngineFailed(f"its graph has {len(graph) >> 20} MiB, and a browser gets at most {MAX_BYTES >> 20}")
    return graph


def _contents(tokenizer: Path, about: Mapping[str, Any], limit: int | None, graph: bytes) -> dict[str, bytes]:
    """Return the files.

    Args:
        tokenizer: the model's tokenizer.json, beside which its other files are.
        about: what a browser needs to know beyond the model's configuration.
        limit: maximum tokens of a text.
        graph: the network.
    """
    config = _object(tokenizer.with_name("config.json"))
    config.pop("auto_map", None)
    config["transformers.js_config"] = {"dtype": "q8", "use_external_data_format": False}
    config["hf_gateway"] = about
    tokens = _object(tokenizer)
    # The library cuts texts itself, by model_max_length, and fills batches up itself.
    tokens["truncation"] = tokens["padding"] = None
    settings = _object(tokenizer.with_name("tokenizer_config.json"))
    settings.pop("auto_map", None)
    if limit is not None:
        settings["model_max_length"] = limit
    documents = {"config.json": config, "tokenizer.json": tokens, "tokenizer_config.json": settings}
    written = {name: json.dumps(each, ensure_ascii=False).encode() for name, each in documents.items()}
    return {**written, GRAPH: graph}


def _object(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise EngineFailed(f"it has no {path.name}")
    return dict(found)
