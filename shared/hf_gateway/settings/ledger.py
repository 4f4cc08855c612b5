"""`[ledger]` of hf-gateway.toml: how long the server keeps the ledger's rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from hf_gateway.settings.config_file import open_config, section_problems
from hf_gateway.settings.problems import Problem, problems_of
from hf_gateway.settings.sections import Section
from hf_gateway.settings.toml_file import ConfigFile

SECTION = "ledger"


class LedgerSection(Section):
    """`[ledger]`: what `hf-gateway serve` does with old rows of its ledger."""

    keep_days: Annotated[int, Field(gt=0, le=100_000)] | None = None
    """For how many whole days (UTC) before today the server keeps rows of the ledger: it removes older ones for good, at its
    start and once a day; by default none. The sums by day and what budgets have spent stay."""

    @classmethod
    def load(cls, path: str | Path | None = None) -> Self:
        """Read the section.

        Args:
            path: the config file; by default the one in force.

        Raises:
            ConfigError: a setting is unknown or invalid; with file and line.
        """
        file = open_config(path)
        if file is None:
            return cls()
        file.refuse(section_problems(file))
        file.refuse(ledger_problems(file))
        return cls.model_validate(file.data.get(SECTION, {}))


def ledger_problems(file: ConfigFile) -> Iterator[Problem]:
    """Yield what is wrong with `[ledger]`.

    Args:
        file: the file.
    """
    table = file.data.get(SECTION, {})
    if isinstance(table, dict):
        found = problems_of(LedgerSection, table, set(LedgerSection.model_fields))
        yield from (problem.below((SECTION,)) for problem in found)
