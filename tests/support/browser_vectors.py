"""Vectors by the files for browsers, computed as transformers.js does: tokens, graph, pooling, norm."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.support.late import COLLECTED

if COLLECTED:
    import numpy as np
    import onnxruntime
    import tokenizers

GRAPH = "onnx/model_quantized.onnx"


def browser_vectors(read: Callable[[str], bytes], texts: Sequence[str]) -> Any:
    """Embed texts, one at a time; `read` returns a file by its name."""
    config, settings = json.loads(read("config.json")), json.loads(read("tokenizer_config.json"))
    tokenizer = tokenizers.Tokenizer.from_str(read("tokenizer.json").decode())
    tokenizer.enable_truncation(settings["model_max_length"])
    session = onnxruntime.InferenceSession(read(GRAPH), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ["last_hidden_state"]
    wanted = {each.name for each in session.get_inputs()}
    found = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids])
        fed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (tokens,) = session.run(None, {name: fed[name] for name in wanted})[0]
        pooled = {"mean": tokens.mean(0), "cls": tokens[0], "last_token": tokens[-1]}[config["hf_gateway"]["pooling"]]
        found.append(pooled / (np.linalg.norm(pooled) if config["hf_gateway"]["normalize"] else 1))
    return np.array(found)
