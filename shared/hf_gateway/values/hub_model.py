"""A model's metadata on the Hub."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

LIFETIME_HOURS = 24.0
"""How long metadata count as fresh."""
# If the clock was set back by more than this, cached metadata are old rather than fresh for years.
_SKEW = timedelta(minutes=1)


@dataclass(frozen=True)
class ModelFile:
    """One file of a repository."""

    path: str
    """Path within the repository."""
    size: int | None = None
    """Bytes; None if the Hub did not report it."""
    digest: str | None = None
    """SHA-256 of a file in large-file storage, otherwise git's blob id; None if the Hub did not report it."""


@dataclass(frozen=True)
class ModelMetadata:
    """A model on the Hub; None for what the Hub did not report."""

    id: str
    """Owner and name; some old models have no owner."""
    author: str | None = None
    """Owner of the repository."""
    sha: str | None = None
    """Commit of the revision that was asked for."""
    downloads: int = 0
    """Downloads of the last 30 days."""
    likes: int = 0
    """Likes of all time."""
    trending: float | None = None
    """The Hub's trending score."""
    tags: tuple[str, ...] = ()
    """All tags of the model."""
    pipeline_tag: str | None = None
    """The task, such as `sentence-similarity`."""
    library_name: str | None = None
    """The library, such as `sentence-transformers`."""
    license: tuple[str, ...] = ()
    """Licence identifiers from the card; rarely several, empty if unknown."""
    size: int | None = None
    """Bytes of all files of the current revision."""
    created: datetime | None = None
    """When the repository was created."""
    modified: datetime | None = None
    """When it was last changed."""
    files: tuple[ModelFile, ...] = ()
    """The files of the revision."""
    card_data: Mapping[str, Any] = field(default_factory=dict)
    """The YAML header of the model card."""
    gated: Literal[False, "auto", "manual"] | None = None
    """False, or how access is granted: "auto" or "manual"."""
    private: bool = False
    """Whether it is visible to its owner only."""
    disabled: bool = False
    """Whether the Hub disabled it."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """How many numbers of each dtype the safetensors files hold."""
    gguf: Mapping[str, Any] = field(default_factory=dict)
    """Facts that the Hub read from GGUF files: `total` (numbers), `architecture`, `context_length`."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The model's configuration, as far as the Hub's answer or its config.json contains it."""
    providers: tuple[Mapping[str, Any], ...] = ()
    """Its Inference Providers: rows with `provider`, `status`, `task`, `providerId`."""
    complete: bool = True
    """False for an entry of a list, which has fewer fields (no sizes)."""
    cached_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the Hub sent these metadata."""
    stale: str | None = field(default=None, compare=False)
    """Why old metadata were returned, None for fresh ones. Neither stored nor compared."""

    def __post_init__(self) -> None:
        """Convert a single licence or tag to a tuple of one, so that it is not read as a sequence of letters."""
        for name in ("license", "tags"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, (value,) if value else ())

    def __hash__(self) -> int:
        """Hash by identity and age; the mappings are not hashable."""
        return hash((self.id, self.sha, self.cached_at))

    def age(self, now: datetime | None = None) -> timedelta:
        """Return the time since the Hub sent these metadata; negative if the clock was set back."""
        return (now or datetime.now(UTC)) - self.cached_at

    def is_expired(self, ttl_hours: float = LIFETIME_HOURS, now: datetime | None = None) -> bool:
        """Return whether the metadata are too old, or from the future.

        Args:
            ttl_hours: the age from which they are too old.
            now: the time to compare with; by default the current one.
        """
        age = self.age(now)
        return age >= timedelta(hours=ttl_hours) or age < -_SKEW

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; `from_dict` reads it back."""
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
        """Read what `to_dict` returned; unknown fields are ignored. Raises KeyError, TypeError, ValueError."""
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
    """The result of a search. source: "hub", or "cache" if the Hub was not asked or did not answer; reason: why not."""

    def __init__(
        self, found: Iterable[ModelMetadata] = (), source: Literal["hub", "cache"] = "hub", reason: str | None = None
    ) -> None:
        """Store the models, best first."""
        super().__init__(found)
        self.source = source
        self.reason = reason


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def age_in_words(age: timedelta) -> str:
    """Return an age in words: `3 days`, `5 hours`."""
    seconds = max(0.0, age.total_seconds())
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "a moment"
