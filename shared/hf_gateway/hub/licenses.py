"""Licences: what the Hub's identifiers and SPDX's mean for somebody who publishes an adapter of a model. No legal advice.

Sources: the list of identifiers in the Hub's documentation (hub/repositories-licenses), SPDX's list, and the licences' own texts.
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
"""From what allows most to what allows least. Nothing is known of an unknown licence, so nothing is allowed by it."""

_MEANING: dict[LicenseClass, str] = {
    "permissive": "an adapter may be published under any licence; keep the model's licence text and notices with it",
    "copyleft": "an adapter may be published, if it is a derived work only under the same licence (or one that it names)",
    "use-restricted": "an adapter may be published if the licence's restrictions on use, and what it wants of names and "
    "notices, are passed on with it; read them first",
    "non-commercial": "an adapter may be published for non-commercial use only, under the same terms; whoever earns money "
    "with it needs other permission",
    "no-derivatives": "an adapter is likely a derived work, and this licence allows none to be published; ask the model's owner",
    "unknown": "nobody said what is allowed, so nothing is: ask the model's owner before an adapter is published",
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

# Families that gain members: a new Llama's licence restricts use as the older ones do. The first that fits counts.
_FAMILIES: tuple[tuple[tuple[str, ...], LicenseClass], ...] = (
    (("cc-by-nd", "cc-by-nc-nd"), "no-derivatives"),
    (("cc-by-nc",), "non-commercial"),
    (("llama", "gemma", "grok"), "use-restricted"),
)
# None of these names a licence: `cc` is any of Creative Commons', with or without leave to derive.
_NAMES_NONE = frozenset({"", "unknown", "other", "none", "cc", "proprietary"})


@dataclass(frozen=True)
class License:
    """What a model's card says of its licence, and what that means.

    identifier: as the card has it, several joined by ", "; None where it has none. license_class: the strictest of them.
    meaning: what it means for publishing an adapter, in a sentence. name, link: what the card gives besides, for `other`.
    """

    identifier: str | None
    license_class: LicenseClass
    meaning: str
    name: str | None = None
    link: str | None = None

    @property
    def known(self) -> bool:
        """The class is known, so something can be said of what is allowed."""
        return self.license_class != "unknown"

    def __bool__(self) -> bool:
        """Whether a licence is named, be it one that nothing is known of."""
        return self.identifier is not None and names_one(self.identifier)

    def to_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "identifier": self.identifier,
            "class": self.license_class,
            "meaning": self.meaning,
            "name": self.name,
            "link": self.link,
        }


def licence_class(identifier: str | Sequence[str] | None) -> LicenseClass:
    """Return the class of an identifier of the Hub's or SPDX's; of several, the strictest. What is not known is `unknown`."""
    if identifier is None:
        return "unknown"
    if isinstance(identifier, str):
        return _class_of(identifier)
    return max((_class_of(str(each)) for each in identifier), key=STRICTNESS.index, default="unknown")


def objection(base: str, ours: str) -> str | None:
    """Say what a base model's licence has against an adapter's, None for nothing; of an unknown one nothing can be said.

    The same licence is always fine, unless it allows no derived works. Nothing else is where the base's wants itself to be kept:
    copyleft, restrictions on use, `-sa`, licences for research. CC BY-NC's adaptations may go out under any CC BY-NC
    (the adapter's licence chart in Creative Commons' FAQ).
    """
    theirs, given = _normal(base), _normal(ours)
    kind = _class_of(theirs)
    if kind == "no-derivatives":
        return f"is {base}, which allows no derived works to be published"
    if theirs == given or kind in ("permissive", "unknown"):
        return None
    if kind in ("copyleft", "use-restricted"):
        return f"is {base}, which wants the adapter to go out under the same licence, not {ours}"
    if _class_of(given) not in ("non-commercial", "no-derivatives"):
        return f"is {base}, for non-commercial use only, and {ours} allows more"
    if theirs.startswith("cc-by-nc-") and not theirs.startswith("cc-by-nc-sa") and given.startswith("cc-by-nc-"):
        return None
    return f"is {base}, for non-commercial use only and under its own terms, not those of {ours}"


def problem_of_ours(identifier: str) -> str | None:
    """Say why an adapter cannot go out under this, None if it can: a licence that the Hub has a name for, or `other`."""
    name = _normal(identifier)
    if name == "other" or _class_of(name) != "unknown":
        return None
    close = get_close_matches(name, sorted(_TABLE), n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"is {identifier!r}, by which no licence goes{meant}: name one, such as apache-2.0, or `other` with its name and link"


def names_one(identifier: str) -> bool:
    """Say whether an identifier speaks of any licence, be it one that nothing is known of."""
    return _normal(identifier) not in ("", "unknown", "none")


def license_of(
    identifier: str | Sequence[str] | None, card: Mapping[str, Any] | None = None, gated: str | bool | None = None
) -> License:
    """Explain a licence. card: the model's card data, for `license_name`, `license_link` and `base_model`."""
    card = card or {}
    found = licence_class(identifier)
    shown = identifier if isinstance(identifier, str) or identifier is None else ", ".join(map(str, identifier))
    name, link = (_string_or_none(card.get(key)) for key in ("license_name", "license_link"))
    meaning = _MEANING[found]
    if found == "unknown" and (name or link):
        meaning += f"; the card points to {' at '.join(each for each in (name, link) if each)}"
    if bases := card.get("base_model"):
        named = bases if isinstance(bases, str) else ", ".join(map(str, bases)) if isinstance(bases, list) else ""
        meaning += f"; what it was made from has a licence too, which holds as well: {named}" if named else ""
    if gated:
        meaning += "; the model is gated, and what was agreed to there holds too"
    return License(shown or None, found, meaning, name, link)


def _class_of(identifier: str) -> LicenseClass:
    name = _normal(identifier)
    if name in _NAMES_NONE:
        return "unknown"
    if name in _TABLE:
        return _TABLE[name]
    return next((each for starts, each in _FAMILIES if name.startswith(starts)), "unknown")


def _normal(identifier: str) -> str:
    return identifier.strip().lower().removeprefix("license:")


def _string_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
