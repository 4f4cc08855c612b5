"""Decides what would be published, and runs the last checks before anything is sent, without a network.

Licences are compared by class (`hub.licenses`). This is not legal advice: doubtful cases are refused, and a person
decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hf_gateway.hub.adapter import CARD, Adapter, AdapterFile, AdapterRefused, Problem, texts_in
from hf_gateway.hub.card import Details, card, front_and_body
from hf_gateway.hub.contents import LocalPaths, secrets_in
from hf_gateway.hub.licenses import licence_class, objection, problem_of_ours
from hf_gateway.hub.named_keys import keys_in_text, settings_with_keys
from hf_gateway.values.secret import Secret


@dataclass(frozen=True)
class PublishPlan:
    """What will be published. Nothing has been sent yet."""

    repo_id: str
    """The repository."""
    endpoint: str
    """Base URL of the Hub."""
    private: bool
    """Whether a new repository is created as private."""
    card: str
    """Text of the card."""
    files: tuple[AdapterFile, ...]
    """Files to publish, the card included, sorted by path."""
    left_out: tuple[str, ...]
    """Paths of files that are not published."""
    changed: tuple[str, ...]
    """Changes made to the files and the card, in words."""
    base_model: str | None
    """Hub id of the base model, if it is known."""
    license: str
    """Licence of the adapter."""
    base_license: str | None
    """Licences of the base model, joined by ", "; None if unknown."""
    unchecked: tuple[str, ...] = ()
    """What a dry run could not check, in words."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "repo_id": self.repo_id,
            "endpoint": self.endpoint,
            "private": self.private,
            "base_model": self.base_model,
            "license": self.license,
            "base_license": self.base_license,
            "files": [
                {"path": file.path, "size": file.size, "changed": file.content is not None} for file in self.files
            ],
            "left_out": list(self.left_out),
            "changed": list(self.changed),
            "unchecked": list(self.unchecked),
            "card": self.card,
        }


@dataclass(frozen=True)
class BaseLicense:
    """The known licences of the base model."""

    identifiers: tuple[str, ...]
    """Identifiers, all of which apply."""
    asked: bool = True
    """Whether the Hub was asked, or had answered earlier."""


def make_plan(
    adapter: Adapter,
    details: Details,
    repo_id: str,
    endpoint: str,
    *,
    private: bool,
    base_license: BaseLicense,
    license_checked: bool,
    unchecked: tuple[str, ...] = (),
    secret: Secret | None = None,
) -> PublishPlan:
    """Run all checks and return what will be published.

    Args:
        adapter: the adapter's folder.
        details: what the author says about it.
        repo_id: the repository.
        endpoint: base URL of the Hub.
        private: whether a new repository is created as private.
        base_license: licences of the base model.
        license_checked: whether a person has read a base licence of an unknown class.
        unchecked: what was not checked, in words.
        secret: a token that the card must not contain.

    Raises:
        AdapterRefused: with all problems that were found.
    """
    problems = [*adapter.problems, *_license_problems(details)]
    if base_license.asked or base_license.identifiers:
        problems += _compatibility(details, adapter.base_model, base_license.identifiers, license_checked)
    paths = LocalPaths(adapter.folder)
    details, keys = _training_without_keys(details)
    details, left_out = _training_without_paths(details, paths)
    text = card(adapter, details, repo_id)
    problems += [*_problems_of_card(text, secret), *_paths_in_card(text, paths)]
    if problems:
        raise AdapterRefused(f"{adapter.folder} cannot be published:", tuple(problems))
    content = text.encode()
    files = sorted([*adapter.files, AdapterFile(CARD, len(content), content)], key=lambda file: file.path)
    return PublishPlan(
        repo_id=repo_id,
        endpoint=endpoint,
        private=private,
        card=text,
        files=tuple(files),
        left_out=adapter.left_out,
        changed=(*adapter.changed, *keys, *left_out),
        base_model=adapter.base_model,
        license=details.license or "",
        base_license=", ".join(base_license.identifiers) or None,
        unchecked=unchecked,
    )


def _license_problems(details: Details) -> list[Problem]:
    if not details.license:
        return [Problem("licence", "license", "is missing: name the licence of the adapter, such as apache-2.0")]
    if details.license.lower() == "other" and not (details.license_name and details.license_link):
        return [Problem("licence", "license", "is `other`, which needs license_name and license_link")]
    problem = problem_of_ours(details.license)
    return [Problem("licence", "license", problem)] if problem else []


def _compatibility(
    details: Details, base_model: str | None, base_licenses: tuple[str, ...], checked: bool
) -> Iterator[Problem]:
    """Yield the conflicts between the licences of the base model and of the adapter. Doubtful cases are conflicts."""
    if base_model is None and not base_licenses and not checked:
        unnamed = "the files name no model on the Hub: name it with base_model, or its licence with base_license"
        yield Problem("licence", "the base model", unnamed)
        return
    where, read = base_model or "the base model", "read it and confirm that (license_checked, --license-checked)"
    if not base_licenses and not checked:
        yield Problem("licence", where, f"its licence is unknown: name it with base_license, or {read}")
    for each in base_licenses:
        problem = objection(each, details.license or "")
        if licence_class(each) == "unknown" and not checked:
            problem = f"is {each}, whose terms are unknown: {read}"
        if problem and (details.license or licence_class(each) in ("unknown", "no-derivatives")):
            yield Problem("licence", where, f"its licence {problem}")


def _training_without_keys(details: Details) -> tuple[Details, list[str]]:
    """Remove settings whose name is that of a key; also return a description of each removal."""
    keys = [name for name, value in details.training.items() if any(settings_with_keys(value, name))]
    kept = {name: value for name, value in details.training.items() if name not in keys}
    removed = [f"{CARD}: training's {name} is left out: by its name it is a key" for name in keys]
    return replace(details, training=kept), removed


def _training_without_paths(details: Details, paths: LocalPaths) -> tuple[Details, list[str]]:
    """Replace local paths in the settings; also return a description of each change."""

    def without(value: Any) -> Any:
        if isinstance(value, list | tuple):
            cleaned = [without(each) for each in value]
            return cleaned if isinstance(value, list) else tuple(cleaned)
        return "(a local path)" if paths.first(str(value)) else value

    kept = {name: without(value) for name, value in details.training.items()}
    left_out = [
        f"{CARD}: training's {name} contained a local path, which was removed"
        for name, value in details.training.items()
        if str(kept[name]) != str(value)
    ]
    return replace(details, training=kept), left_out


def _paths_in_card(text: str, paths: LocalPaths) -> Iterator[Problem]:
    """Yield local paths in the finished card, from whatever source, each once."""
    front, body = front_and_body(text)
    found = [(at, path) for at, value in texts_in(front) if (path := paths.first(value))]
    found += [(f"line {line} of the text", path) for line, path in paths.within(body)]
    known = set[str]()
    for at, path in found:
        if path not in known:
            known.add(path)
            yield Problem("local path", CARD, f"{at} contains a local path, {path}; name it otherwise, or take it out")


def _problems_of_card(text: str, secret: Secret | None) -> list[Problem]:
    found = [
        Problem("secret", CARD, f"line {line} of the card seems to contain {kind}") for line, kind in secrets_in(text)
    ]
    named = [(f"line {line} of the card", name) for line, name in keys_in_text(text)]
    known = {name for _, name in named}
    front, _ = front_and_body(text)
    named += [("the metadata", way) for way in settings_with_keys(front) if way.rpartition(".")[2] not in known]
    found += [
        Problem("secret", CARD, f"{place}: {name} is a key by its name; take it out, and revoke it if it is one")
        for place, name in dict.fromkeys(named)
    ]
    if secret is not None and secret.scrub(text) != text:
        found.append(Problem("secret", CARD, "the card contains the token itself"))
    return found
