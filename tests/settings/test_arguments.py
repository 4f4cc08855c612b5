"""The arguments that a type checker sees are those that the settings accept."""

import pytest

from hf_gateway.settings.chat import ChatArguments, ChatKeywords, ChatSettings
from hf_gateway.settings.embedding import EmbeddingArguments, EmbeddingKeywords, EmbedSettings


@pytest.mark.parametrize(
    ("arguments", "settings"), [(EmbeddingArguments, EmbedSettings), (ChatArguments, ChatSettings)]
)
def test_a_checker_knows_each_argument_and_no_other(arguments: type, settings: type) -> None:
    assert set(arguments.__annotations__) == set(settings.model_fields)


@pytest.mark.parametrize(
    ("arguments", "keywords"), [(EmbeddingArguments, EmbeddingKeywords), (ChatArguments, ChatKeywords)]
)
def test_the_keywords_are_the_arguments_beside_the_model_and_the_targets(arguments: type, keywords: type) -> None:
    assert set(arguments.__annotations__) - set(keywords.__annotations__) == {"model", "targets"}
