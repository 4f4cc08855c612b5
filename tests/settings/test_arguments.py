"""What settings accept, as a type checker, `help` and a JSON schema show it."""

import inspect
from typing import Any, get_type_hints

import pytest

from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.chat import ChatArguments, ChatKeywords, ChatSettings
from hf_gateway.settings.embedding import EmbeddingArguments, EmbeddingKeywords, EmbedSettings
from hf_gateway.settings.sparse import SparseSettings
from tests.support.late import COLLECTED

if COLLECTED:
    import jsonschema


TASKS = [(EmbeddingArguments, EmbedSettings), (ChatArguments, ChatSettings)]
SETTINGS = [EmbedSettings, ChatSettings]


@pytest.mark.parametrize(("arguments", "settings"), TASKS)
def test_a_checker_knows_each_argument_with_the_type_that_the_constructor_accepts(
    arguments: type, settings: type[NamedSettings]
) -> None:
    parameters = inspect.signature(settings).parameters
    assert get_type_hints(arguments) == {name: parameter.annotation for name, parameter in parameters.items()}


@pytest.mark.parametrize(
    ("arguments", "keywords"), [(EmbeddingArguments, EmbeddingKeywords), (ChatArguments, ChatKeywords)]
)
def test_the_keywords_are_the_arguments_beside_the_model_and_the_targets(arguments: type, keywords: type) -> None:
    assert set(arguments.__annotations__) - set(keywords.__annotations__) == {"model", "targets"}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_the_schema_describes_every_setting(settings: type[NamedSettings], mode: Any) -> None:
    schema = settings.model_json_schema(mode=mode)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert [name for name, written in schema["properties"].items() if not written.get("description")] == []
    expected = {name for name, field in settings.model_fields.items() if mode == "validation" or not field.exclude}
    assert set(schema["properties"]) == expected


def test_a_description_is_the_docstring_under_the_field_in_one_line() -> None:
    schema = ChatSettings.model_json_schema()
    assert schema["properties"]["connect_timeout"]["description"] == "Seconds for each connection."
    assert "\n" not in schema["properties"]["attempt_timeout"]["description"]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("targets", ["local", {"kind": "tei", "url": "http://tei:8080"}], True),
        ("targets", "hf,local", True),
        ("targets", None, True),
        ("targets", [{"url": "http://tei:8080"}], False),
        ("targets", [{"kind": "tei", "host": "tei"}], False),
        ("targets", 3, False),
        ("api_key", "env:HF_TOKEN", True),
        ("api_key", 3, False),
        ("timeout", 5, True),
        ("timeout", 0, False),
        ("max_retries", -1, False),
        ("nonsense", 1, False),
    ],
)
def test_the_schema_takes_what_a_file_may_say(
    settings: type[NamedSettings], name: str, value: object, valid: bool
) -> None:
    schema = jsonschema.Draft202012Validator(settings.model_json_schema())
    assert schema.is_valid({name: value}) is valid


def test_a_subclass_of_a_user_describes_its_own_fields_too() -> None:
    class Searching(EmbedSettings):
        limit: int = 3
        """Passages to return."""

    schema = Searching.model_json_schema()
    assert schema["properties"]["limit"]["description"] == "Passages to return."
    assert list(inspect.signature(Searching).parameters)[:2] == ["model", "targets"]
    assert "limit" in inspect.signature(Searching).parameters


@pytest.mark.parametrize("settings", [EmbedSettings, SparseSettings])
def test_each_setting_that_describes_a_chain_of_vectors_is_known_to_change_their_space_or_not_to(
    settings: type[EmbedSettings | SparseSettings],
) -> None:
    describing = {name for name, field in settings.model_fields.items() if not field.exclude}
    assert describing == settings.space_fields | {"model", "targets", "truncate", "on_space_change"}
