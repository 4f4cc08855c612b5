"""Files of a loaded model are written to, or are not as its settings say: an error with the reason, never another vector."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.engines.networks.build import build_refusal
from tests.support.graph_vectors import GRAPHS, change, embed, rewrite, worst_cosine
from tests.support.late import COLLECTED
from tests.support.tiny_encoders import TEXTS, encoder, reference

if COLLECTED:
    import numpy as np

pytestmark = pytest.mark.xdist_group("torch")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_GATEWAY_CONVERTED", str(tmp_path / "converted"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("changed") / "bert")


@pytest.fixture
def model(bert: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(bert, tmp_path / "model"))


def opened(model: Path, engine: str) -> Gateway:
    return Gateway(str(model), [Target("local", options={"engine": engine, "dtype": "fp32"})], truncate=True)


def _cut(weights: Path) -> None:
    os.truncate(weights, 100)


def _write_over(weights: Path) -> None:
    other = bytes(reversed(weights.read_bytes()))
    with weights.open("r+b") as file:
        file.write(other)


@pytest.mark.parametrize("change_file", [_cut, _write_over])
@pytest.mark.parametrize("engine", GRAPHS)
def test_weights_that_are_written_to_while_they_are_in_use_are_an_error(
    model: Path, engine: str, change_file: Callable[[Path], None]
) -> None:
    gateway = opened(model, engine)
    gateway.embed(["cat"])
    change_file(model / "model.safetensors")
    with pytest.raises(
        errors.EngineFailed, match=r"model\.safetensors was written to after it was loaded: open the model"
    ):
        gateway.embed(list(TEXTS))


@pytest.mark.parametrize("engine", GRAPHS)
def test_weights_that_are_replaced_by_a_rename_stay_those_that_were_loaded(model: Path, engine: str) -> None:
    gateway = opened(model, engine)
    before = gateway.embed(list(TEXTS)).vectors.tolist()
    other = model / "other"
    other.write_bytes(bytes(reversed((model / "model.safetensors").read_bytes())))
    other.replace(model / "model.safetensors")
    assert gateway.embed(list(TEXTS)).vectors.tolist() == before


@pytest.mark.parametrize("engine", [*GRAPHS, "torch"])
def test_a_model_that_was_trained_again_is_loaded_again_beside_the_old_one(
    model: Path, engine: str, tmp_path: Path
) -> None:
    target = Target("local", options={"engine": engine, "dtype": "fp32"})
    old = Gateway(str(model), [target], truncate=True, check_space=False)
    before = old.embed(list(TEXTS)).vectors.tolist()
    trained = Path(shutil.copytree(model, tmp_path / "trained"))
    rewrite(trained, lambda found: {name: each.flip(0).contiguous() for name, each in found.items()})
    (trained / "model.safetensors").replace(model / "model.safetensors")
    new = Gateway(str(model), [target], truncate=True, check_space=False)
    assert worst_cosine(new.embed(list(TEXTS)).vectors, reference(model).encode(list(TEXTS))) >= 0.99999
    assert old.embed(list(TEXTS)).vectors.tolist() == before


@pytest.mark.parametrize("engine", [*GRAPHS, "torch"])
def test_vectors_are_cut_to_the_dimension_that_a_model_was_saved_with(model: Path, engine: str) -> None:
    path = model / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncate_dim": 8}))
    gateway = opened(model, engine)
    assert gateway.space.dimension == 8
    expected = reference(model).encode(list(TEXTS))
    assert expected.shape == (len(TEXTS), 8)
    assert np.allclose(gateway.embed(list(TEXTS)).vectors, expected, atol=1e-5)


def test_why_no_graph_is_built_is_told_beside_why_it_cannot_be_converted(model: Path) -> None:
    change(model, num_attention_heads=5)
    with pytest.raises(
        errors.EngineFailed, match=r"cannot be loaded: .*; and its config\.json has num_attention_heads=5"
    ):
        embed(model, "openvino")


@pytest.mark.parametrize("spaces", [1, 2, 3])
@pytest.mark.parametrize("engine", GRAPHS)
def test_numbers_at_any_place_of_the_file_are_read(model: Path, engine: str, spaces: int) -> None:
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + size].rstrip()
    header += b" " * (-len(header) % 8 + spaces)
    weights.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + size :])
    expected = reference(model).encode(list(TEXTS))
    assert worst_cosine(embed(model, engine), expected) >= 0.99999


@pytest.mark.parametrize("engine", GRAPHS)
def test_a_token_that_the_network_has_no_vector_for_is_an_error(model: Path, engine: str) -> None:
    table = "embeddings.word_embeddings.weight"
    rewrite(model, lambda found: {**found, table: found[table][:60].clone()})
    change(model, vocab_size=60)
    with pytest.raises(
        errors.EngineFailed, match=r"its tokenizer gives the token \d+, but its config.json has vocab_size=60"
    ):
        embed(model, engine)


@pytest.mark.parametrize("engine", GRAPHS)
def test_an_adapter_beside_the_weights_is_not_left_out(model: Path, engine: str) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    kind = LoraConfig(target_modules=["query", "value"], init_lora_weights=False, task_type="FEATURE_EXTRACTION")
    get_peft_model(AutoModel.from_pretrained(model), kind).save_pretrained(model)
    with pytest.raises(errors.EngineFailed, match="it has an adapter beside its weights"):
        embed(model, engine)
    chosen = Gateway(str(model), [Target("local", options={"dtype": "fp32"})], truncate=True)
    assert worst_cosine(chosen.embed(list(TEXTS)).vectors, reference(model).encode(list(TEXTS))) >= 0.99999


@pytest.mark.parametrize("family", ["roberta", "mpnet"])
def test_positions_are_counted_from_the_usual_padding_where_the_config_names_none(family: str, tmp_path: Path) -> None:
    model = encoder(tmp_path / "made", family, max_seq_length=65)
    config = json.loads((model / "config.json").read_text())
    del config["pad_token_id"]
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(errors.EngineFailed, match="it has positions for 64 tokens, but its tokenizer allows 65"):
        embed(model, "openvino")


def test_more_distances_than_fit_into_memory_are_refused_before_they_are_made(tmp_path: Path) -> None:
    count = 60_000
    model = encoder(tmp_path / "made", "mpnet", hidden_size=4, intermediate_size=4)
    table = "embeddings.position_embeddings.weight"
    rewrite(model, lambda found: {**found, table: found[table].new_zeros(count, 4)})
    change(model, max_position_embeddings=count)
    refused = build_refusal(model)
    assert refused is not None
    assert "max_position_embeddings=60000, too many for MPNet's distances" in refused.message


def test_a_number_type_that_is_not_read_is_named(model: Path) -> None:
    import torch

    rewrite(
        model,
        lambda found: {
            name: each.to(torch.float8_e4m3fn) if name.endswith("query.weight") else each
            for name, each in found.items()
        },
    )
    refused = build_refusal(model)
    assert refused is not None
    assert "query.weight' has the number type F8_E4M3, which is not one of F64" in refused.message
