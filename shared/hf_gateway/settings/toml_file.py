"""A configuration file that has been read: its values, and the lines of them."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from hf_gateway.errors import ConfigError
from hf_gateway.settings.problems import Problem
from hf_gateway.settings.toml_lines import Place, TomlLines


@dataclass(frozen=True)
class Unreadable:
    """Why a file has no values."""

    path: Path
    """Where it is."""
    message: str
    """What is wrong with it."""
    line: int | None = None
    """The line, counted from 1, if it is one line that is wrong."""

    def __str__(self) -> str:
        """Return it with file and line."""
        return f"{self.path}{'' if self.line is None else f':{self.line}'}: {self.message}"


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file."""

    path: Path
    """Where it is."""
    text: str = field(repr=False)
    """Its content."""
    data: dict[str, Any] = field(repr=False)
    """The values in it."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises ConfigError, with the line if it is not TOML."""
        found = cls.try_to_read(path)
        if isinstance(found, Unreadable):
            raise ConfigError(str(found))
        return found

    @classmethod
    def try_to_read(cls, path: Path) -> Self | Unreadable:
        """Return a file, or why it cannot be read."""
        text = ""
        try:
            text = path.read_text(encoding="utf-8-sig")
            return cls(path, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            where = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
            return Unreadable(path, f"not TOML: {error}", int(where[1]) if where else len(text.splitlines()))
        except (OSError, UnicodeDecodeError) as error:
            return Unreadable(path, f"cannot be read: {error}")
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists within lists
            return Unreadable(path, f"not a configuration: {error}")

    @cached_property
    def _lines(self) -> TomlLines:
        return TomlLines(self.text)

    def line(self, place: Place) -> int:
        """Return the line of a key, a table or an element, or of what holds it."""
        return self._lines.line(place)

    def has(self, place: Place) -> bool:
        """Return whether there is a key, a table or an element in a place."""
        return self._lines.has(place)

    def error(self, problem: Problem) -> ConfigError:
        """Return a problem as an error with file and line."""
        return ConfigError(f"{self.path}:{self.line(problem.place)}: {problem.message}")

    def refuse(self, problems: Iterable[Problem]) -> None:
        """Raise the first of the problems; nothing without any."""
        for problem in problems:
            raise self.error(problem)
