"""Classes of licences and what they mean for publishing an adapter of a model. Not legal advice.

Sources: the identifiers in the Hub's documentation (hub/repositories-licenses), SPDX's list, and the texts of the
licences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

LicenseClass = Literal["permissive", "copyleft", "use-restricted", "non-commercial", "no-derivatives", "unknown"]

STRICTNESS: tuple[LicenseClass, ...] = (
    "permissive",
    "copyleft",
    "use-restricted",
    "non-commercial",
    "no-derivatives",
    "unknown",
)
"""From the most to the least permissive. The terms of an unknown licence are unknown, so it permits nothing."""

_MEANING: dict[LicenseClass, str] = {
    "permissive": "an adapter may be published under any licence; keep the model's licence text and notices with it",
    "copyleft": "an adapter may be published, if it is a derived work only under the same licence (or one that it names)",
    "use-restricted": "an adapter may be published if the licence's restrictions on use, and what it wants of names and "
    "notices, are passed on with it; read them first",
    "non-commercial": "an adapter may be published for non-commercial use only, under the same terms; commercial use needs "
    "another permission",
    "no-derivatives": "an adapter is likely a derived work, and this licence does not allow publishing it; ask the owner",
    "unknown": "the terms are unknown, so nothing is permitted: ask the model's owner before publishing an adapter",
}

_IDENTIFIERS: dict[LicenseClass, str] = {
    "permissive": """
        apache-2.0 mit mit-0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear 0bsd isc zlib unlicense wtfpl cc0-1.0 cc-by-2.0
        cc-by-2.5 cc-by-3.0 cc-by-4.0 pddl odc-by postgresql ncsa bsl-1.0 artistic-2.0 afl-3.0 ecl-2.0 ms-pl
        cdla-permissive-1.0 cdla-permissive-2.0 etalab-2.0 python-2.0 x11 openmdw-1.0 openmdw-1.1 apple-ascl""",
    "copyleft": """
        gpl gpl-2.0 gpl-3.0 gpl-2.0-only gpl-2.0-or-later gpl-3.0-only gpl-3.0-or-later agpl-3.0 agpl-3.0-only agpl-3.0-or-later
        lgpl lgpl-2.1 lgpl-3.0 lgpl-2.1-only lgpl-2.1-or-later lgpl-3.0-only lgpl-3.0-or-later lgpl-lr mpl-2.0 epl-1.0 epl-2.0
        eupl-1.1 eupl-1.2 osl-3.0 cc-by-sa-3.0 cc-by-sa-4.0 odbl gfdl cdla-sharing-1.0 lppl-1.3c
        ofl-1.1""",
    "use-restricted": """
        openrail openrail++ creativeml-openrail-m bigscience-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
        llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma grok2-community c-uda""",
    "non-commercial": """
        cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
        fair-noncommercial-research-license apple-amlr intel-research h-research deepfloyd-if-license""",
    "no-derivatives": "cc-by-nd-3.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0",
}
_TABLE: dict[str, LicenseClass] = {
    name: each for each, names in _IDENTIFIERS.items() for name in names.split()
}  # fmt: skip

# Families that will get new members: a new Llama's licence restricts use as the older ones do. The first match counts.
_FAMILIES: tuple[tuple[tuple[str, ...], LicenseClass], ...] = (
    (("cc-by-nd", "cc-by-nc-nd"), "no-derivatives"),
    (("cc-by-nc",), "non-commercial"),
    (("llama", "gemma", "grok"), "use-restricted"),
)
# Values that do not identify a licence: `cc` may be any of Creative Commons', with or without permission to derive.
_UNSPECIFIC_NAMES = frozenset({"", "unknown", "other", "none", "cc", "proprietary"})


@dataclass(frozen=True)
class License:
    """The licence in a model's card, and what it means."""

    identifier: str | None
    """The card's identifiers, joined by ", "; None if the card has no licence."""
    license_class: LicenseClass
    """The strictest class of the identifiers."""
    meaning: str
    """What it means for publishing an adapter, in a sentence."""
    name: str | None = None
    """The card's `license_name`, used with `other`."""
    link: str | None = None
    """The card's `license_link`, used with `other`."""

    @property
    def is_known(self) -> bool:
        """Whether the class is known."""
        return self.license_class != "unknown"

    def __bool__(self) -> bool:
        """Return whether the card names a licence, even one of an unknown class."""
        return self.identifier is not None and is_named(self.identifier)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "identifier": self.identifier,
            "class": self.license_class,
            "meaning": self.meaning,
            "name": self.name,
            "link": self.link,
        }


def licence_class(identifier: str | Sequence[str] | None) -> LicenseClass:
    """Return the class of a Hub or SPDX identifier; of several, the strictest. An unknown identifier has the class `unknown`."""
    if identifier is None:
        return "unknown"
    if isinstance(identifier, str):
        return _class_of(identifier)
    return max((_class_of(str(each)) for each in identifier), key=STRICTNESS.index, default="unknown")


def objection(base: str, ours: str) -> str | None:
    """Return why an adapter's licence does not comply with the base model's; None if it does or the base's class is unknown.

    The same licence always complies, unless it does not allow derived works. A licence that has to be kept allows no
    other: copyleft, restrictions on use, `-sa`, research licences. Adaptations of CC BY-NC works may be under any CC
    BY-NC licence (the adapter's licence chart in Creative Commons' FAQ).

    Args:
        base: identifier of the base model's licence.
        ours: identifier of the adapter's licence.
    """
    theirs, given = _normal(base), _normal(ours)
    kind = _class_of(theirs)
    if kind == "no-derivatives":
        return f"is {base}, which does not allow derived works to be published"
    if theirs == given or kind in ("permissive", "unknown"):
        return None
    if kind in ("copyleft", "use-restricted"):
        return f"is {base}, which requires the same licence for the adapter, not {ours}"
    if _class_of(given) not in ("non-commercial", "no-derivatives"):
        return f"is {base}, for non-commercial use only, and {ours} allows more"
    if theirs.startswith("cc-by-nc-") and not theirs.startswith("cc-by-nc-sa") and given.startswith("cc-by-nc-"):
        return None
    return f"is {base}, for non-commercial use only and under its own terms, not those of {ours}"


def problem_of_ours(identifier: str) -> str | None:
    """Return why an adapter cannot be published under an identifier; None if the Hub knows it, or if it is `other`."""
    name = _normal(identifier)
    if name == "other" or _class_of(name) != "unknown":
        return None
    close = get_close_matches(name, sorted(_TABLE), n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"is {identifier!r}, an unknown identifier{meant}: use one such as apache-2.0, or `other` with its name and link"


def is_named(identifier: str) -> bool:
    """Return whether an identifier names a licence, even one of an unknown class."""
    return _normal(identifier) not in ("", "unknown", "none")


def license_of(
    identifier: str | Sequence[str] | None, card: Mapping[str, Any] | None = None, gated: str | bool | None = None
) -> License:
    """Return a licence with its class and meaning.

    Args:
        identifier: one or several identifiers.
        card: card data of the model, for `license_name`, `license_link` and `base_model`.
        gated: whether the Hub restricts access to the model.
    """
    card = card or {}
    found = licence_class(identifier)
    shown = identifier if isinstance(identifier, str) or identifier is None else ", ".join(map(str, identifier))
    name, link = (_string_or_none(card.get(key)) for key in ("license_name", "license_link"))
    meaning = _MEANING[found]
    if found == "unknown" and (name or link):
        meaning += f"; the card points to {' at '.join(each for each in (name, link) if each)}"
    if bases := card.get("base_model"):
        named = bases if isinstance(bases, str) else ", ".join(map(str, bases)) if isinstance(bases, list) else ""
        meaning += f"; the licence of the model that it is based on applies as well: {named}" if named else ""
    if gated:
        meaning += "; the model is gated, and the terms accepted for access apply too"
    return License(shown or None, found, meaning, name, link)


def _class_of(identifier: str) -> LicenseClass:
    name = _normal(identifier)
    if name in _UNSPECIFIC_NAMES:
        return "unknown"
    if name in _TABLE:
        return _TABLE[name]
    return next((each for starts, each in _FAMILIES if name.startswith(starts)), "unknown")


def _normal(identifier: str) -> str:
    return identifier.strip().lower().removeprefix("license:")


def _string_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
