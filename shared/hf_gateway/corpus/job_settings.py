"""The settings of a job, in a form that goes to its workers as JSON."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from hf_gateway.corpus.rate_limit import RateLimits
from hf_gateway.errors import ConfigError

OnBadRow = Literal["fail", "dead-letter"]
Form = Literal["parquet", "arrow", "npy", "lance", "store"]
"""Of the parts; "store" for those of a job that writes into one, whose files have the ids alone."""
Dtype = Literal["float32", "float16"]
DEFAULT_ID = "id"
"""The column of the ids, if none is named: inputs may be without it."""
MAX_BAD_ROWS = 1000
"""Dead letters of a job, if nothing else is said: more of them speak for a fault that is not the rows'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Where a job writes, which columns it reads, and by which gateway it embeds."""

    out: str
    """The folder of the parts, or of what is kept of a job that writes into a store."""
    store: str | None = None
    """The collection that the rows are written into, as `stores.base` names one; None for a folder."""
    text: str = "text"
    """The column of the texts, or a template over several: "{title}: {body}"."""
    id: str = DEFAULT_ID
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
    split: Mapping[str, Any] | None = None
    """The fields of a `Splitting`; None if documents are embedded whole."""
    form: Form = "parquet"
    """The format of the parts."""
    dtype: Dtype = "float32"
    """Of the vectors in the parts."""
    limit_rps: float | None = None
    """Requests a second of all workers, towards each server."""
    limit_tps: float | None = None
    """Tokens a second of all workers, towards each server."""
    redis: str | None = None
    """URL of the Redis in which the limits are kept; None to divide them."""
    workers: int = 1
    """By how many workers limits are divided, and the CPUs of a machine that has all of them."""
    gpus: float = 0.0
    """GPUs, or the share of one, that each worker is given by the engine."""
    since: str | None = None
    """The folder of an earlier job, whose vectors are used again."""
    updates_store: bool = False
    """Whether `since` is the job that wrote the same collection, whose unchanged rows are left as they are."""
    name: str = ""
    """What the ledger's rows have as the request."""

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
    def needed_columns(self) -> list[str]:
        """The columns that inputs must have: that of the ids only if it was named."""
        named = [] if self.id == DEFAULT_ID else [self.id]
        return list(dict.fromkeys([*named, *self.text_columns, *self.keep]))

    @property
    def is_template(self) -> bool:
        """Whether `text` is a template."""
        return "{" in self.text

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        return list(dict.fromkeys([self.id, *self.text_columns, *self.keep]))

    def text_of(self, row: Mapping[str, Any]) -> Any:
        """Return the text of a row; in a template null is nothing, and without any value there is no text.

        Args:
            row: its columns.
        """
        if not self.is_template:
            return row.get(self.text)
        if all(row.get(name) is None for name in self.text_columns):
            return None
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
        if self.id in self.keep or {"vector", "text_hash"} & {self.id, *self.keep}:
            raise ConfigError("the columns to keep are others than the ids, and none is named 'vector' or 'text_hash'")
        if self.form not in get_args(Form) or self.dtype not in get_args(Dtype):
            raise ConfigError(f"parts are {', '.join(get_args(Form)[:-1])} of {', '.join(get_args(Dtype))}")
        if (self.store is None) == (self.form == "store"):
            raise ConfigError("a store has a format of its own: name no --format")
        RateLimits(self.limit_rps, self.limit_tps)
        if self.redis is not None and self.limit_rps is None and self.limit_tps is None:
            raise ConfigError("a Redis is for limits: name requests or tokens a second, too")
        if self.on_bad_row not in ("fail", "dead-letter"):
            raise ConfigError(f"on_bad_row is 'fail' or 'dead-letter', not {self.on_bad_row!r}")
        if not 0 <= self.gpus < float("inf"):
            raise ConfigError(f"the GPUs of a worker are a number from 0, not {self.gpus}")
        if self.max_bad < 0:
            raise ConfigError("max_bad is at least 0")


def check_sizes(shard_rows: int, shard_bytes: int, workers: int = 1) -> None:
    """Raise ConfigError for what is less than one.

    Args:
        shard_rows: rows of a part at most.
        shard_bytes: bytes of a part's texts at most.
        workers: processes.
    """
    if workers < 1 or shard_rows < 1 or shard_bytes < 1:
        raise ConfigError("workers, shard_rows and shard_bytes are at least 1")
