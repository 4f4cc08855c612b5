"""What every table of hf-gateway.toml has in common, besides the chains, whose settings are arguments as well."""

from typing import Any

from pydantic import ConfigDict

from hf_gateway.values.plain_numbers import PlainNumbers


class Section(PlainNumbers):
    """A table of the file: unknown names are errors, and each setting is described by the docstring under its field."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, frozen=True)

    @classmethod
    def file_names(cls) -> set[str]:
        """Return the names that the table may have."""
        return set(cls.model_fields)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Describe each setting by the docstring under its field."""
        from hf_gateway.settings.introspection import with_descriptions

        return with_descriptions(cls, handler(core_schema), handler.resolve_ref_schema)
