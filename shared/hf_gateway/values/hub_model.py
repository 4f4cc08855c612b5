"""What the Hub says of a model, without its weights."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

LIFETIME_HOURS = 24.0
"""For which metadata are taken for fresh."""
# A clock that was set back by more than this makes what was kept old, not fresh for years.
_SKEW = timedelta(minutes=1)


@dataclass(frozen=True)
class ModelFile:
    """One file of a repository. size: bytes; digest: SHA-256 of what is in large-file storage, git's id of the rest.

    Either is None where the Hub did not say.
    """

    path: str
    size: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class ModelMetadata:
    """A model on the Hub.

    Attributes:
        id: owner and name; some old models have no owner.
        downloads: in the last 30 days.
        license: identifiers as the card has them; several are rare, none means that nobody said.
        size: bytes of all files of the current revision, None where it is not known.
        gated: False, or how access is given: "auto" or "manual"; None where it is not known.
        parameters: dtype → how many numbers of it the safetensors files hold.
        gguf: what the Hub read from GGUF files: `total` (numbers), `architecture`, `context_length`.
        config: the shape of the model, as far as the Hub's answer or its config.json gave it.
        providers: who serves it on Inference Providers: rows with `provider`, `status`, `task`, `providerId`.
        complete: False for what came from a list, which says less (no sizes).
        cached_at: when the Hub said all this.
        stale: why something old is served, None for what is fresh. Not kept, and not compared.
    """

    id: str
    author: str | None = None
    sha: str | None = None
    downloads: int = 0
    likes: int = 0
    trending: float | None = None
    tags: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    library_name: str | None = None
    license: tuple[str, ...] = ()
    size: int | None = None
    created: datetime | None = None
    modified: datetime | None = None
    files: tuple[ModelFile, ...] = ()
    card_data: Mapping[str, Any] = field(default_factory=dict)
    gated: Literal[False, "auto", "manual"] | None = None
    private: bool = False
    disabled: bool = False
    parameters: Mapping[str, int] = field(default_factory=dict)
    gguf: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    providers: tuple[Mapping[str, Any], ...] = ()
    complete: bool = True
    cached_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    stale: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Take one identifier or tag for a list of one, not for a list of its letters."""
        for name in ("license", "tags"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, (value,) if value else ())

    def __hash__(self) -> int:
        """Hash by what tells models apart; the mappings have no hash."""
        return hash((self.id, self.sha, self.cached_at))

    def age(self, now: datetime | None = None) -> timedelta:
        """Return how long ago the Hub said this; below zero where the clock was set back."""
        return (now or datetime.now(UTC)) - self.cached_at

    def is_expired(self, ttl_hours: float = LIFETIME_HOURS, now: datetime | None = None) -> bool:
        """Say whether it is older than so many hours, or from the future."""
        age = self.age(now)
        return age >= timedelta(hours=ttl_hours) or age < -_SKEW

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it; `from_dict` reads it back."""
        found = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "stale"}
        for name in ("created", "modified", "cached_at"):
            found[name] = found[name].isoformat() if found[name] is not None else None
        for name in ("card_data", "parameters", "gguf", "config"):
            found[name] = dict(found[name])
        found.update(
            tags=list(self.tags), license=list(self.license), providers=[dict(each) for each in self.providers]
        )
        found["files"] = [dataclasses.asdict(file) for file in self.files]
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; what it does not know it leaves out. Raises KeyError, TypeError, ValueError."""
        known = {item.name for item in dataclasses.fields(cls)}
        found = {name: value for name, value in data.items() if name in known}
        if not isinstance(found["id"], str):
            raise TypeError("the id of a model is a string")
        for name in ("created", "modified", "cached_at"):
            if found.get(name) is not None:
                found[name] = _aware(datetime.fromisoformat(found[name]))
        for name in ("tags", "license", "providers"):
            if name in found and not isinstance(found[name], str):
                found[name] = tuple(found[name] or ())
        if "files" in found:
            found["files"] = tuple(
                ModelFile(each["path"], each.get("size"), each.get("digest")) for each in found["files"]
            )
        return cls(**found)


class Models(list[ModelMetadata]):
    """What a search found. source: "hub", or "cache" where the Hub was not asked or did not answer; reason: why not."""

    def __init__(
        self, found: Iterable[ModelMetadata] = (), source: Literal["hub", "cache"] = "hub", reason: str | None = None
    ) -> None:
        """Take the models, best first."""
        super().__init__(found)
        self.source = source
        self.reason = reason


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def age_in_words(age: timedelta) -> str:
    """Say an age as people do: `3 days`, `5 hours`."""
    seconds = max(0.0, age.total_seconds())
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "a moment"
