"""What would be published, and what stands against it: the last look before anything is sent, without any network.

Licences are compared by class (`hub.licenses`). That is no legal advice: what is doubtful is refused, and a person decides.
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
    """What goes out, and where. Nothing of it has been sent.

    private: how a repository that does not exist yet is made. files: with the card, in the repository's order. left_out: what
    stays on this machine. changed: what was changed in the files on the way, in words. unchecked: what only the Hub can say.
    """

    repo_id: str
    endpoint: str
    private: bool
    card: str
    files: tuple[AdapterFile, ...]
    left_out: tuple[str, ...]
    changed: tuple[str, ...]
    base_model: str | None
    license: str
    base_license: str | None
    unchecked: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it for machines."""
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
    """What is known of the base model's licence. identifiers: each of them holds; asked: the Hub could say, if anybody could."""

    identifiers: tuple[str, ...]
    asked: bool = True


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
    """Put together what goes out. secret: a token that must not stand in it. Raises AdapterRefused, with every problem in it."""
    problems = [*adapter.problems, *_license_problems(details)]
    if base_license.asked or base_license.identifiers:
        problems += _compatibility(details, adapter.base_model, base_license.identifiers, license_checked)
    paths = LocalPaths(adapter.folder)
    details, keys = _training_without_keys(details)
    details, left_out = _training_without_paths(details, paths)
    text = card(adapter, details, repo_id)
    problems += [*_problems_of_card(text, secret), *_paths_in_card(text, paths)]
    if problems:
        raise AdapterRefused(f"{adapter.folder} is not published as it is:", tuple(problems))
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
        return [
            Problem(
                "licence", "license", "is missing: say under which licence the adapter goes out, such as apache-2.0"
            )
        ]
    if details.license.lower() == "other" and not (details.license_name and details.license_link):
        return [Problem("licence", "license", "is `other`, which needs license_name and license_link")]
    problem = problem_of_ours(details.license)
    return [Problem("licence", "license", problem)] if problem else []


def _compatibility(
    details: Details, base_model: str | None, base_licenses: tuple[str, ...], checked: bool
) -> Iterator[Problem]:
    """Say what the base model's licences have against the adapter's. No legal advice: what is doubtful is refused."""
    if base_model is None and not base_licenses and not checked:
        said = "the files name no model on the Hub: name it with base_model, or what it is under with base_license"
        yield Problem("licence", "the base model", said)
        return
    where, read = base_model or "the base model", "read it and say so (license_checked, --license-checked)"
    if not base_licenses and not checked:
        yield Problem("licence", where, f"its licence is not known: name it with base_license, or {read}")
    for each in base_licenses:
        problem = objection(each, details.license or "")
        if licence_class(each) == "unknown" and not checked:
            problem = f"is {each}, of which nothing is known: {read}"
        if problem and (details.license or licence_class(each) in ("unknown", "no-derivatives")):
            yield Problem("licence", where, f"its licence {problem}")


def _training_without_keys(details: Details) -> tuple[Details, list[str]]:
    """Leave settings out whose name says that they are a key, and say which."""
    keys = [name for name, value in details.training.items() if any(settings_with_keys(value, name))]
    kept = {name: value for name, value in details.training.items() if name not in keys}
    said = [f"{CARD}: training's {name} is left out: by its name there is a key in it" for name in keys]
    return replace(details, training=kept), said


def _training_without_paths(details: Details, paths: LocalPaths) -> tuple[Details, list[str]]:
    """Take paths of this machine out of the settings, and say of which."""

    def without(value: Any) -> Any:
        if isinstance(value, list | tuple):
            cleaned = [without(each) for each in value]
            return cleaned if isinstance(value, list) else tuple(cleaned)
        return "(a local path)" if paths.first(str(value)) else value

    kept = {name: without(value) for name, value in details.training.items()}
    left_out = [
        f"{CARD}: training's {name} had a path of this machine in it, and does without now"
        for name, value in details.training.items()
        if str(kept[name]) != str(value)
    ]
    return replace(details, training=kept), left_out


def _paths_in_card(text: str, paths: LocalPaths) -> Iterator[Problem]:
    """Find paths of this machine in the finished card, whoever said them; each once."""
    front, body = front_and_body(text)
    found = [(at, path) for at, value in texts_in(front) if (path := paths.first(value))]
    found += [(f"line {line} of the text", path) for line, path in paths.within(body)]
    known = set[str]()
    for at, path in found:
        if path not in known:
            known.add(path)
            yield Problem(
                "local path", CARD, f"{at} has a path of this machine in it, {path}; name it otherwise, or take it out"
            )


def _problems_of_card(text: str, secret: Secret | None) -> list[Problem]:
    found = [
        Problem("secret", CARD, f"line {line} of the card seems to hold {kind}") for line, kind in secrets_in(text)
    ]
    named = [(f"line {line} of the card", name) for line, name in keys_in_text(text)]
    known = {name for _, name in named}
    front, _ = front_and_body(text)
    named += [("the metadata", way) for way in settings_with_keys(front) if way.rpartition(".")[2] not in known]
    found += [
        Problem(
            "secret", CARD, f"{place}: by its name, {name}, there is a key; take it out, and revoke it if it is one"
        )
        for place, name in dict.fromkeys(named)
    ]
    if secret is not None and secret.scrub(text) != text:
        found.append(Problem("secret", CARD, "the card holds the token itself"))
    return found
