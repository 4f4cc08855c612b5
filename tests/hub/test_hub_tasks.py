"""What the Hub's models of each installed task are taken for, and which targets are said to serve them."""

from typing import Any

import pytest

from hf_gateway.hub import Compatibility, ModelFile, ModelMetadata
from hf_gateway.hub.compatibility import check_model
from hf_gateway.hub.machine import Machine
from hf_gateway.hub.needs import needs
from hf_gateway.values.hub_task import HubTask, hub_tasks

MB = 10**6
ROOMY = Machine(memory=64_000 * MB, available=60_000 * MB, disk=500_000 * MB)


def model(**fields: Any) -> ModelMetadata:
    said = {
        "id": "org/model",
        "library_name": "transformers",
        "files": (ModelFile("model.safetensors", 1000 * MB), ModelFile("config.json", 800)),
        "parameters": {"F32": 250 * MB},
        "config": {"architectures": ["BertForSequenceClassification"], "model_type": "bert"},
        **fields,
    }
    return ModelMetadata(**said)


def check(metadata: ModelMetadata) -> Compatibility:
    return check_model(metadata, needs(metadata), ROOMY, None)


def models_of(task: HubTask) -> list[ModelMetadata]:
    """Return a model for each of the Hub's names of a task; sparse encoders are known by another tag."""
    made = [model(pipeline_tag=name) for name in task.hub_names]
    return [each for each in [*made, model(tags=("sparse-encoder",))] if task.is_for(each)]


@pytest.mark.parametrize("task", hub_tasks(), ids=lambda task: task.name)
def test_a_model_of_each_task_is_known_with_what_serves_it(task: HubTask) -> None:
    found = models_of(task)
    assert found, f"no model of the Hub is for {task.name}"
    for metadata in found:
        checked = check(metadata)
        assert checked.task == task.name
        local, *others = checked.targets
        assert (local.target, local.serves is False) == ("local:org/model", False), local.why
        (ollama,) = [each for each in others if each.target.startswith("ollama")]
        assert (task.title in ollama.why) is not task.in_ollama


@pytest.mark.parametrize("task", hub_tasks(), ids=lambda task: task.name)
def test_a_cache_of_keys_and_values_is_for_tasks_that_generate_text(task: HubTask) -> None:
    decoder = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_size": 64,
        "model_type": "llama",
    }
    for name in task.hub_names:
        needed = needs(model(pipeline_tag=name, config=decoder))
        assert bool(needed.kv_cache) is task.generates_text, name


@pytest.mark.parametrize("task", hub_tasks(), ids=lambda task: task.name)
def test_a_provider_is_named_for_the_task_that_it_serves(task: HubTask) -> None:
    metadata = models_of(task)[0]
    for tag in sorted(task.provider_tags):
        hosted = check(model(**{**vars_of(metadata), "providers": ({"provider": "p", "task": tag, "status": "live"},)}))
        (found,) = [each for each in hosted.targets if each.target == "hf:p"]
        assert found.serves is (task.providers is None), found.why
        if task.providers is not None:
            assert task.title in found.why


def vars_of(metadata: ModelMetadata) -> dict[str, Any]:
    return {"pipeline_tag": metadata.pipeline_tag, "tags": metadata.tags}


def test_a_task_whose_engine_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_gateway.hub.compatibility.find_spec", lambda _: None)
    said = {task.name: check(models_of(task)[0]).targets[0].why for task in hub_tasks()}
    assert "pip install 'hf-gateway[images]'" in said["image"]
    assert "pip install 'hf-gateway[torch]'" in said["rerank"]


PIPELINE = {
    "model_index.json": 600,
    "model_1.0.safetensors": 6940 * MB,
    "unet/diffusion_pytorch_model.safetensors": 10_270 * MB,
    "unet/diffusion_pytorch_model.fp16.safetensors": 5135 * MB,
    "unet/diffusion_pytorch_model.bin": 10_270 * MB,
    "text_encoder/model.safetensors": 492 * MB,
    "text_encoder/model.fp16.safetensors": 246 * MB,
    "vae/diffusion_pytorch_model.fp16-00001-of-00002.safetensors": 100 * MB,
    "vae/diffusion_pytorch_model.fp16-00002-of-00002.safetensors": 67 * MB,
}


def test_of_a_pipeline_of_diffusers_the_parts_count_once() -> None:
    metadata = model(
        pipeline_tag="text-to-image",
        library_name="diffusers",
        parameters={},
        config={},
        files=tuple(ModelFile(path, size) for path, size in PIPELINE.items()),
    )
    needed = needs(metadata)
    assert needed.weights == (10_270 + 492 + 100 + 67) * MB
    assert needed.download == needed.weights + 600
