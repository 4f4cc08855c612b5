"""Graphs built from config.json and safetensors, without torch: the vectors of transformers, or a refusal by name."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.engines.networks.build import build_refusal
from hf_gateway.engines.networks.safetensors import read_tensors
from hf_gateway.errors import EngineFailed
from tests.servers.hub import FakeHub, HubModel
from tests.support.graph_vectors import GRAPHS, change, embed, embed_without_torch, rewrite, worst_cosine
from tests.support.tiny_encoders import FAMILIES, TEXTS, encoder, reference

pytestmark = pytest.mark.xdist_group("torch")

SHAPES: dict[str, dict[str, Any]] = {
    "more heads than layers": {"layers": 1, "heads": 8, "hidden": 64, "inner": 48},
    "one head, a narrow middle": {"layers": 3, "heads": 1, "hidden": 24, "inner": 8},
    "an odd width": {"layers": 2, "heads": 3, "hidden": 33, "inner": 130},
}
NAMES = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "hidden_size",
    "inner": "intermediate_size",
}
DISTILBERTS_NAMES = {"layers": "n_layers", "heads": "n_heads", "hidden": "dim", "inner": "hidden_dim"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_GATEWAY_CONVERTED", str(tmp_path / "converted"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("networks") / "bert")


@pytest.fixture
def model(bert: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_any_shape_has_the_vectors_of_transformers(family: str, shape: str, tmp_path: Path) -> None:
    names = DISTILBERTS_NAMES if family == "distilbert" else NAMES
    sizes = {names[name]: value for name, value in SHAPES[shape].items()}
    folder = encoder(tmp_path / "made", family, seed=7, **sizes)
    expected = reference(folder).encode(list(TEXTS))
    for engine in GRAPHS:
        assert build_refusal(folder) is None
        assert worst_cosine(embed(folder, engine), expected) >= 0.99999, engine


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "relu", "silu"])
def test_other_activations_and_epsilons_are_computed(activation: str, tmp_path: Path) -> None:
    folder = encoder(tmp_path / "made", hidden_act=activation, layer_norm_eps=1e-3)
    expected = reference(folder).encode(list(TEXTS))
    for engine in GRAPHS:
        assert worst_cosine(embed(folder, engine), expected) >= 0.99999, engine


@pytest.mark.parametrize("engine", GRAPHS)
def test_a_model_embeds_from_safetensors_without_torch(bert: Path, engine: str) -> None:
    name, vectors, log = embed_without_torch(str(bert), engine)
    assert name == engine
    assert worst_cosine(vectors, reference(bert).encode(list(TEXTS))) >= 0.99999
    assert "converting" not in log


def test_a_model_of_the_hub_is_downloaded_as_safetensors_and_embeds_without_torch(bert: Path, tmp_path: Path) -> None:
    with FakeHub({"org/model": HubModel(bert)}) as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_GATEWAY_HOME": str(tmp_path / "gw"),
        }
        _, vectors, _ = embed_without_torch("org/model", **environment)
        _, again, _ = embed_without_torch("org/model", **environment)
    assert worst_cosine(vectors, reference(bert).encode(list(TEXTS))) >= 0.99999
    assert (vectors == again).all()


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("engine", GRAPHS)
def test_files_in_sixteen_bits_are_read_as_they_are(model: Path, engine: str, kind: str) -> None:
    import torch

    rewrite(model, lambda found: {name: each.to(getattr(torch, kind)) for name, each in found.items()})
    expected = reference(model).encode(list(TEXTS))
    assert worst_cosine(embed(model, engine), expected) >= 0.99999


def test_names_of_old_files_and_of_models_with_a_head_are_known(model: Path) -> None:
    expected = reference(model).encode(list(TEXTS))

    def old(found: dict[str, Any]) -> dict[str, Any]:
        names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        renamed = {}
        for name, each in found.items():
            ending = next((known for known in names if name.endswith(known)), None)
            renamed["bert." + (name.removesuffix(ending) + names[ending] if ending else name)] = each
        return renamed

    rewrite(model, old)
    assert worst_cosine(embed(model, "openvino"), expected) >= 0.99999


def test_weights_in_several_files_are_read_by_their_index(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    expected = reference(model).encode(list(TEXTS))
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, inside in parts.items():
        save_file({name: tensors[name] for name in inside}, model / file)
    weight_map = {name: file for file, inside in parts.items() for name in inside}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (model / "model.safetensors").unlink()
    assert worst_cosine(embed(model, "openvino"), expected) >= 0.99999


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_act": "mish"}, "hidden_act='mish', which is not one of gelu"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key', which is not supported"),
        ({"is_decoder": True}, "is_decoder=True, which is not supported"),
        ({"num_attention_heads": 5}, "num_attention_heads=5, which does not divide 32"),
        ({"hidden_size": 10**12}, "hidden_size=1000000000000, not a whole number from 1 to"),
        ({"num_hidden_layers": 10**7}, "the tensor 'encoder.layer.2.attention.self.query.weight' is missing"),
        (
            {"vocab_size": 9_999_999},
            r"the tensor 'embeddings.word_embeddings.weight' has the shape \(\d+, 32\), but by",
        ),
        ({"layer_norm_eps": "small"}, "layer_norm_eps='small', not a number above 0"),
        ({"model_type": "albert"}, "graphs of the family 'albert' are not built"),
        ({"model_type": ["bert"]}, "graphs of the family"),
        ({"num_hidden_layers": 1}, "have the tensor 'encoder.layer.1.attention.output.LayerNorm.bias' and 15 more"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_a_configuration_that_is_not_understood_is_refused_by_name(
    model: Path, changes: dict[str, Any], reason: str
) -> None:
    change(model, **changes)
    with pytest.raises(EngineFailed, match=reason):
        raise build_refusal(model) or AssertionError("it was built")


def test_a_tensor_that_is_missing_or_of_another_network_is_refused_by_name(model: Path) -> None:
    rewrite(
        model, lambda found: {name: each for name, each in found.items() if "layer.1.output.dense.bias" not in name}
    )
    assert "'encoder.layer.1.output.dense.bias' is missing" in str(build_refusal(model))


def header(about: Any, size: int | None = None) -> bytes:
    data = json.dumps(about).encode() if not isinstance(about, bytes) else about
    return struct.pack("<Q", len(data) if size is None else size) + data + bytes(64)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        header({}, 10**12),
        header(b"not JSON"),
        header([1]),
        header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 999]}}),
        header({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}),
        header({"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}),
        header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}),
        header({"a": {"dtype": "F32", "shape": [10**18, 10**18], "data_offsets": [0, 16]}}),
        header({"a": {"dtype": "F32", "shape": "4", "data_offsets": None}}),
        header({"a": None}),
        header(b"[" * 100_000),
    ],
    ids=range(13),
)
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(EngineFailed, match=r"model\.safetensors cannot be read"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("named", ["../other.safetensors", "/etc/passwd", 3])
def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path, named: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": named}}))
    with pytest.raises(EngineFailed, match="not in its folder"):
        read_tensors(tmp_path)
