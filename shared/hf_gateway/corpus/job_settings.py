"""The settings of a job, in a form that goes to its workers as JSON."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hf_gateway.errors import ConfigError

OnBadRow = Literal["fail", "dead-letter"]
MAX_BAD_ROWS = 1000
"""Dead letters of a job, if nothing else is said: more of them speak for a fault that is not the rows'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Where a job writes, which columns it reads, and by which gateway it embeds."""

    out: str
    """The folder of the parts."""
    text: str = "text"
    """The column of the texts, or a template over several: "{title}: {body}"."""
    id: str = "id"
    """The column of the ids."""
    keep: Sequence[str] = ()
    """Columns that are copied into the parts."""
    chain: str | None = None
    """Name of a chain of the config file."""
    config: str | None = None
    """Path of the config file."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the gateway."""
    on_bad_row: OnBadRow = "fail"
    """What a row means that cannot be embedded by its own fault."""
    max_bad: int = MAX_BAD_ROWS
    """Dead letters at most."""

    @property
    def text_columns(self) -> list[str]:
        """The columns that make a text."""
        if not self.is_template:
            return [self.text]
        try:
            parsed = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise ConfigError(f"the template {self.text!r} is invalid: {error}") from None
        fields = [(name, spec, conversion) for _, name, spec, conversion in parsed if name is not None]
        if any(not name or spec or conversion for name, spec, conversion in fields):
            raise ConfigError(
                f"the template {self.text!r} may name columns in braces, and nothing more: " + "{title}: {body}"
            )
        return list(dict.fromkeys(name for name, _, _ in fields))

    @property
    def is_template(self) -> bool:
        """Whether `text` is a template."""
        return "{" in self.text

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        return list(dict.fromkeys([self.id, *self.text_columns, *self.keep]))

    def text_of(self, row: Mapping[str, Any]) -> Any:
        """Return the text of a row; in a template null is nothing.

        Args:
            row: its columns.
        """
        if not self.is_template:
            return row.get(self.text)
        made = ""
        for literal, name, _, _ in string.Formatter().parse(self.text):
            value = None if name is None else row.get(name)
            made += literal + ("" if value is None else str(value))
        return made

    def check(self) -> None:
        """Raise ConfigError for settings that contradict each other."""
        columns = self.text_columns
        if not columns:
            raise ConfigError(f"the template {self.text!r} names no column")
        if self.id in columns and not self.is_template:
            raise ConfigError(f"the texts and the ids cannot both be the column {self.id!r}")
        if self.id in self.keep or "vector" in (self.id, *self.keep):
            raise ConfigError("the columns to keep are others than the ids, and none is named 'vector'")
        if self.on_bad_row not in ("fail", "dead-letter"):
            raise ConfigError(f"on_bad_row is 'fail' or 'dead-letter', not {self.on_bad_row!r}")
        if self.max_bad < 0:
            raise ConfigError("max_bad is at least 0")
