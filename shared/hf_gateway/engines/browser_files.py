"""The files of an embedding model as transformers.js reads them in a browser, made of the model's own weights.

They are made once for each content of a model, and kept below HF_GATEWAY_HOME.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hf_gateway.engines.converted import identity
from hf_gateway.engines.graphs import TOKEN_AXES
from hf_gateway.engines.layout import Layout, read_layout
from hf_gateway.engines.networks.browser_onnx import BrowserWriter
from hf_gateway.engines.networks.build import build_network
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
    """Return the files for browsers by name, made if they are not there yet. Blocks, the first time for seconds.

    Raises:
        EngineFailed: the model's structure or family is not supported here, or it is too large for a browser.
        ConfigError: the model's files are damaged.
        OSError: the files cannot be written.
    """
    layout = read_layout(files)
    pooling = _pooling(layout)
    folder = home() / "browser-models" / f"{identity(files)}-{VERSION}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with interprocess_lock(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                _make(files, layout, pooling, folder)
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


def _make(files: ModelFiles, layout: Layout, pooling: str, folder: Path) -> None:
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    # What a killed process left: no other one works there, since this one has the lock.
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "onnx").mkdir(parents=True)
    try:
        digests = {}
        for name, data in _contents(files, layout, pooling).items():
            (unfinished / name).write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
        (unfinished / "sha256.json").write_text(json.dumps(digests), encoding="utf-8")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _contents(files: ModelFiles, layout: Layout, pooling: str) -> dict[str, bytes]:
    tokenizer = check_files(files.path, layout)
    maps, writer = MappedFiles(), BrowserWriter()
    network = build_network(files.path / layout.transformer, writer, partial(read_tensors, maps=maps))
    graph = writer.model(network, TOKEN_AXES)
    maps.check()
    if len(graph) > MAX_BYTES:
        raise EngineFailed(f"its graph has {len(graph) >> 20} MiB, and a browser gets at most {MAX_BYTES >> 20}")
    limit = read_space(lambda name: read_json(files.path / name), "").max_tokens
    config = _object(tokenizer.with_name("config.json"))
    config.pop("auto_map", None)
    config["transformers.js_config"] = {"dtype": "q8", "use_external_data_format": False}
    config["hf_gateway"] = {"pooling": pooling, "normalize": "normalize" in layout.after, "dimension": layout.cut}
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
