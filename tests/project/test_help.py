"""`help` of the frameworks' classes and of `Gateway` shows how they are built: our arguments first, each explained."""

import inspect
import pydoc
import re
from functools import cache
from importlib import import_module
from typing import Any

import pytest

from hf_gateway.settings.chat import ChatSettings
from hf_gateway.settings.classification import ClassifySettings
from hf_gateway.settings.embedding import EmbedSettings
from hf_gateway.settings.image import ImageSettings
from hf_gateway.settings.rerank import RerankSettings

CLASSES = {
    "langchain_hf_gateway.HFGatewayEmbeddings": (EmbedSettings, set()),
    "langchain_hf_gateway.ChatHFGateway": (ChatSettings, set()),
    "llamaindex_hf_gateway.HFGatewayEmbedding": (
        EmbedSettings,
        {"model_name", "embed_batch_size", "num_workers", "embeddings_cache"},
    ),
    "llamaindex_hf_gateway.HFGatewayLLM": (
        ChatSettings,
        {"num_output", "is_function_calling_model", "structured_output"},
    ),
    "langchain_hf_gateway.HFGatewayClassifier": (ClassifySettings, set()),
    "llamaindex_hf_gateway.HFGatewaySelector": (
        ClassifySettings,
        {"select_multi", "threshold", "max_outputs", "judge_by"},
    ),
    "langchain_hf_gateway.HFGatewayReranker": (RerankSettings, set()),
    "llamaindex_hf_gateway.HFGatewayRerank": (RerankSettings, {"keep_retrieval_score"}),
    "llamaindex_hf_gateway.HFGatewayImageTool": (
        ImageSettings,
        {"tool_name", "tool_description", "return_direct", "show_images"},
    ),
}
"""Class → its settings, and what it declares beside them."""
ARGUMENTS = {
    "langchain_hf_gateway.ChatHFGateway": ("langchain_hf_gateway.chat_models.ChatModelArguments", set()),
    "llamaindex_hf_gateway.HFGatewayEmbedding": ("llamaindex_hf_gateway.embedding.EmbeddingModelArguments", {"model"}),
    "llamaindex_hf_gateway.HFGatewayLLM": ("llamaindex_hf_gateway.llm.LLMArguments", {"model_name"}),
    "llamaindex_hf_gateway.HFGatewayRerank": ("llamaindex_hf_gateway.rerank.RerankerArguments", set()),
    "llamaindex_hf_gateway.HFGatewayImageTool": ("llamaindex_hf_gateway.image_tool.ImageToolArguments", set()),
}
"""Class → the types of what its `from_config` takes, and the other words that it takes for its fields."""


@cache
def load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def own_arguments(path: str) -> set[str]:
    settings, declared = CLASSES[path]
    return {name for name in settings.model_fields if name != "model" or "model_name" not in declared} | declared


@pytest.mark.parametrize("path", CLASSES)
def test_the_signature_has_the_model_the_targets_our_arguments_and_then_the_frameworks(path: str) -> None:
    names = list(inspect.signature(load(path)).parameters)
    own = own_arguments(path)
    assert names[0] == ("model_name" if "model_name" in own else "model")
    assert names[1] == "targets"
    assert set(names[: len(own)]) == own
    assert set(names) == set(load(path).model_fields)


@pytest.mark.parametrize("path", CLASSES)
def test_the_signature_shows_what_is_accepted_and_nothing_of_pydantic(path: str) -> None:
    signature = inspect.signature(load(path))
    assert not re.search("Validator|Annotated|FieldInfo|Accepts|args|kwargs", str(signature))
    assert "tuple" not in str(signature.parameters["targets"])
    assert "str | " in str(signature.parameters["api_key"])
    assert signature.parameters["timeout"].annotation is float


@pytest.mark.parametrize("path", CLASSES)
def test_the_docstring_explains_each_of_our_arguments_in_the_signatures_order(path: str) -> None:
    _, _, after = inspect.getdoc(load(path)).partition("Args:\n")
    explained = re.findall(r"^    (\w+): \S", after.partition("\n\n")[0], re.MULTILINE)
    assert explained == list(inspect.signature(load(path)).parameters)[: len(own_arguments(path))]


@pytest.mark.parametrize("path", CLASSES)
def test_help_begins_with_the_signature_and_the_arguments(path: str) -> None:
    name = path.rpartition(".")[2]
    shown = pydoc.plain(pydoc.render_doc(load(path)))
    assert f"{name}(*, model" in shown[: shown.index("Args:")]


@pytest.mark.parametrize("path", ARGUMENTS)
def test_from_config_takes_all_that_the_constructor_does(path: str) -> None:
    arguments, words = ARGUMENTS[path]
    assert set(load(arguments).__annotations__) == set(load(path).model_fields) - {"name"} | words


@pytest.mark.parametrize("path", CLASSES)
def test_the_schema_of_a_class_describes_our_arguments(path: str) -> None:
    # Fields of LangChain's own base class have no schema for what they accept, so its classes have one for what they write.
    mode = "serialization" if path.endswith("ChatHFGateway") else "validation"
    shown = load(path).model_json_schema(mode=mode)["properties"]
    assert [name for name in own_arguments(path) & set(shown) if not shown[name].get("description")] == []
    assert shown["targets"]["description"].startswith("The targets in order of preference")


def test_an_instance_has_the_signature_of_its_own_call() -> None:
    embedding = load("llamaindex_hf_gateway.HFGatewayEmbedding")(targets=["hash"])
    assert list(inspect.signature(embedding).parameters) == ["nodes", "kwargs"]


def test_the_gateway_explains_each_parameter_that_its_signature_shows() -> None:
    parameters = list(inspect.signature(load("hf_gateway.Gateway")).parameters)
    _, _, after = inspect.getdoc(load("hf_gateway.Gateway")).partition("Args:\n")
    explained = re.findall(r"^    (\w+): \S", after.partition("\n\n")[0], re.MULTILINE)
    assert parameters[:2] == ["model", "targets"]
    assert explained == parameters
