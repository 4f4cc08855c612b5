"""Whether a server answered with the model that was named: real pairs of names, and no alarm for aliases."""

import pytest

from hf_gateway.wire.model_names import contradict

ONE_MODEL = [
    ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1-8b"),
    ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"),
    ("meta-llama/Llama-3.1-8B-Instruct", "accounts/fireworks/models/llama-v3p1-8b-instruct"),
    ("meta-llama/Llama-3.1-8B-Instruct", "us.meta.llama3-1-8b-instruct-v1:0"),
    ("meta-llama/Llama-3.1-8B-Instruct:cerebras", "llama3.1-8b"),
    ("meta-llama/Llama-3.1-8B-Instruct", "/models/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf"),
    ("llama3.1", "llama3.1:latest"),
    ("meta-llama/Llama-3.2-3B-Instruct", "llama3.2"),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama-4-scout-17b-16e"),
    ("gpt-4o", "gpt-4o-2024-08-06"),
    ("gpt-3.5-turbo", "gpt-35-turbo"),
    ("openai/gpt-oss-120b", "gpt-oss-120b"),
    ("claude-3.5-sonnet", "claude-3-5-sonnet-20241022"),
    ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "deepseek-r1:8b"),
    ("deepseek-ai/DeepSeek-V3", "deepseek-v3-0324"),
    ("Qwen/Qwen3-235B-A22B", "qwen3-235b-a22b-fp8-tput"),
    ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5:7b-instruct-q4_0"),
    ("mistral-small-latest", "mistral-small-2506"),
    ("microsoft/Phi-3-mini-4k-instruct", "phi3"),
    ("google/gemma-2-9b-it", "gemma2:9b"),
    ("google/gemma-2b", "gemma:2b"),
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral:8x7b"),
    ("fast", "qwen2.5-7b-instruct"),
    ("default", "gpt-4o"),
    ("tgi", "HuggingFaceH4/zephyr-7b-beta"),
    ("m", "anything/else"),
    ("test/chat-model", "my-own-finetune"),
    ("Qwen/Qwen2.5-7B-Instruct", "/root/.cache/snapshots/0123abcd"),
]
TWO_MODELS = [
    ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-72B-Instruct"),  # recorded
    ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1:70b"),
    ("meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"),
    ("meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-Instruct-v0.3"),
    ("Qwen/Qwen2.5-7B-Instruct", "qwen3-7b"),
    ("google/gemma-2-9b-it", "gemma-3"),
    ("gpt-4o", "claude-sonnet-4"),
    ("claude-3-opus", "claude-3-haiku"),
    ("mistral-large-latest", "mistral-small-2506"),
    ("HuggingFaceTB/SmolLM2-360M-Instruct", "smollm2:135m"),
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral:8x22b"),
]


@pytest.mark.parametrize(("named", "served"), ONE_MODEL)
def test_an_alias_is_no_other_model(named: str, served: str) -> None:
    assert not contradict(named, served)
    assert not contradict(served, named)
    assert not contradict(named, named)


@pytest.mark.parametrize(("named", "served"), TWO_MODELS)
def test_another_size_version_variant_or_family_is_another_model(named: str, served: str) -> None:
    assert contradict(named, served)
    assert contradict(served, named)
