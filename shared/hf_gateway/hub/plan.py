"""What would be published, and what stands against it: the last look before anything is sent, without any network.

Licences are compared by class (`hub.licenses`). That is no legal advice: what is doubtful is refused, and a person decides.
"""

from dataclasses import dataclass
from typing import Any

from hf_gateway.hub.adapter import CARD, Adapter, AdapterFile, AdapterRefused, Problem
from hf_gateway.hub.card import Details, card
from hf_gateway.hub.contents import secrets_in
from hf_gateway.hub.licenses import LicenseClass, licence_class
from hf_gateway.secret import Secret


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
    """What is known of the base model's licence. identifier: several joined by ", ", None for none; asked: somebody could say."""

    identifier: str | None
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
    if base_license.asked:
        problems += _compatibility(details, adapter.base_model, base_license.identifier, license_checked)
    text = card(adapter, details, repo_id)
    problems += _problems_of_card(text, secret)
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
        changed=adapter.changed,
        base_model=adapter.base_model,
        license=details.license or "",
        base_license=base_license.identifier,
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
    return []


def _compatibility(details: Details, base_model: str | None, base_license: str | None, checked: bool) -> list[Problem]:
    """Say what the base model's licence has against the adapter's. No legal advice: what is doubtful is refused."""
    ours, base = (details.license or "").lower(), (base_license or "").lower()
    kind: LicenseClass = licence_class([each.strip() for each in base.split(",")] if base else None)
    our_kind = licence_class(ours)
    problem = None
    if base_model is None and base_license is None and not checked:
        said = "the files name no model on the Hub: name it with base_model, or what it is under with base_license"
        return [Problem("licence", "the base model", said)]
    if kind == "no-derivatives":
        problem = f"is {base_license}, which allows no derived works to be published"
    elif kind == "unknown" and not checked:
        said = f"is {base_license}, of which nothing is known" if base_license else "is not known"
        problem = f"{said}: name it with base_license, or read it and say so (license_checked, --license-checked)"
    elif kind == "non-commercial" and our_kind not in ("non-commercial", "no-derivatives"):
        problem = f"is {base_license}, for non-commercial use only, and {details.license} allows more"
    elif kind in ("copyleft", "use-restricted") and ours not in [each.strip() for each in base.split(",")]:
        problem = f"is {base_license}, which wants the adapter to go out under the same licence, not {details.license}"
    return [Problem("licence", base_model or "the base model", f"its licence {problem}")] if problem else []


def _problems_of_card(text: str, secret: Secret | None) -> list[Problem]:
    found = [
        Problem("secret", CARD, f"line {line} of the card seems to hold {kind}") for line, kind in secrets_in(text)
    ]
    if secret is not None and secret.scrub(text) != text:
        found.append(Problem("secret", CARD, "the card holds the token itself"))
    return found
