"""Vectors of a model by the engines that run a graph, in this process or in one without torch, and changes of its files."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.late import COLLECTED
from tests.support.tiny_encoders import TEXTS

if COLLECTED:
    import numpy as np

GRAPHS = ("openvino", "onnxruntime")

WITHOUT_TORCH = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
for name in ("torch", "transformers", "sentence_transformers", "safetensors", "onnx"):
    sys.modules[name] = None
from hf_gateway import Gateway, Target
from tests.support.tiny_encoders import TEXTS
options = json.loads(sys.argv[2])
gateway = Gateway(sys.argv[1], [Target("local", options=options)], truncate=True, check_space=False)
print(json.dumps([gateway.candidates[0].ability.engine().name, gateway.embed(list(TEXTS)).vectors.tolist()]))
"""


def embed_without_torch(model: str, engine: str | None = None, **environment: str) -> tuple[str, Any, str]:
    """Embed in a process from which torch is hidden; returns the engine, the vectors and the log."""
    options = {"dtype": "fp32", **({"engine": engine} if engine else {})}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, model, json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), **environment},
    )
    assert done.returncode == 0, done.stderr
    name, vectors = json.loads(done.stdout.strip().splitlines()[-1])
    return name, np.asarray(vectors), done.stderr


def embed(model: Path, engine: str) -> Any:
    from hf_gateway import Gateway, Target

    chosen = Gateway(str(model), [Target("local", options={"engine": engine, "dtype": "fp32"})], truncate=True)
    return np.asarray(chosen.embed(list(TEXTS)).vectors)


def worst_cosine(found: Any, expected: Any) -> float:
    one, other = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min())


def change(model: Path, **values: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rewrite(model: Path, change_tensors: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the tensors, as torch's, in the model's file."""
    from safetensors.torch import load_file, save_file

    path = model / "model.safetensors"
    save_file(change_tensors(load_file(path)), path)
