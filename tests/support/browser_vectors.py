"""Vectors and logits by the files for browsers, computed as transformers.js does: tokens, graph, pooling, norm."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.support.late import COLLECTED

if COLLECTED:
    import numpy as np
    import onnxruntime
    import tokenizers

GRAPH = "onnx/model_quantized.onnx"


def browser_vectors(read: Callable[[str], bytes], texts: Sequence[str]) -> Any:
    """Embed texts, one at a time; `read` returns a file by its name."""
    about = json.loads(read("config.json"))["hf_gateway"]
    found = []
    for (tokens,) in _outputs(read, texts, "last_hidden_state"):
        pooled = {"mean": tokens.mean(0), "cls": tokens[0], "last_token": tokens[-1]}[about["pooling"]]
        found.append(pooled / (np.linalg.norm(pooled) if about["normalize"] else 1))
    return np.array(found)


def browser_logits(read: Callable[[str], bytes], texts: Sequence[str]) -> list[list[float]]:
    """Return what the network says to each label of texts, one at a time; `read` returns a file by its name."""
    return [row.tolist() for (row,) in _outputs(read, texts, "logits")]


def _outputs(read: Callable[[str], bytes], texts: Sequence[str], name: str) -> Iterator[Any]:
    settings = json.loads(read("tokenizer_config.json"))
    tokenizer = tokenizers.Tokenizer.from_str(read("tokenizer.json").decode())
    tokenizer.enable_truncation(settings["model_max_length"])
    session = onnxruntime.InferenceSession(read(GRAPH), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == [name]
    wanted = {each.name for each in session.get_inputs()}
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids])
        fed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        yield session.run(None, {name: fed[name] for name in wanted})[0]
