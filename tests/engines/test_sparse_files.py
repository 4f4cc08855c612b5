"""What the files of a sparse model say of its vectors, whatever is in them."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import SparseGateway, errors
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.engines.sparse_files import is_dense, space_of

MLM = {"type": "sentence_transformers.sparse_encoder.modules.MLMTransformer", "path": ""}


def module(name: str, path: str = "1_Pooling") -> dict[str, str]:
    return {"type": f"sentence_transformers.sparse_encoder.modules.{name}", "path": path}


def files(folder: Path, modules: Any = None, pooling: Any = None, config: Any = None, saved: Any = None) -> ModelFiles:
    (folder / "1_Pooling").mkdir()
    contents = {
        "config.json": {"vocab_size": 30522} if config is None else config,
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "config_sentence_transformers.json": saved,
    }
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return ModelFiles(folder, "path")


@pytest.mark.parametrize(
    ("modules", "pooling", "found"),
    [
        (None, None, "splade"),
        ([MLM, module("SpladePooling")], {"pooling_strategy": "max", "activation_function": "relu"}, "splade"),
        ([MLM, module("SpladePooling")], None, "splade"),
        ([MLM, module("SpladePooling")], {"pooling_strategy": "sum"}, "splade-sum"),
        ([MLM, module("SpladePooling")], {"activation_function": "log1p_relu"}, "splade-log1p_relu"),
        ([module("Router", "")], None, "router"),
        ([module("SparseStaticEmbedding", "")], None, "sparsestaticembedding"),
        ([MLM, module("Pooling"), module("SparseAutoEncoder", "2_Sparse")], None, "sparseautoencoder"),
        ({"no": "list"}, [1], "splade"),
    ],
)
def test_the_pooling_is_what_tells_spaces_apart(tmp_path: Path, modules: Any, pooling: Any, found: str) -> None:
    space = space_of(files(tmp_path, modules, pooling), "a/model")
    assert (space.pooling, space.dimension, space.query_prompt) == (found, 30522, "")


@pytest.mark.parametrize("size", [0, -1, True, "30522", None, 1.5])
def test_a_vocabulary_of_no_size_is_unknown(tmp_path: Path, size: Any) -> None:
    assert space_of(files(tmp_path, config={"vocab_size": size}), "a/model").dimension is None


def test_prompts_are_read(tmp_path: Path) -> None:
    space = space_of(files(tmp_path, saved={"prompts": {"query": "q: ", "document": "d: "}}), "a/model")
    assert (space.query_prompt, space.document_prompt) == ("q: ", "d: ")


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "C:\\models", "a/../../b", "\\\\host\\share"])
def test_a_path_outside_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(errors.ConfigError, match="outside of the model's folder"):
        space_of(files(tmp_path, [MLM, module("SpladePooling", path)]), "a/model")
    with pytest.raises(errors.ConfigError), SparseGateway(str(tmp_path), ["local"]) as gateway:
        gateway.embed(["x"])


def test_a_dense_model_is_known_by_its_pooling(tmp_path: Path) -> None:
    assert is_dense(files(tmp_path, [MLM, module("Pooling")]))


def test_a_sparse_one_over_dense_vectors_is_none(tmp_path: Path) -> None:
    assert not is_dense(files(tmp_path, [MLM, module("Pooling"), module("SparseAutoEncoder", "2_Sparse")]))
