"""Which environment variables, and which files with keys, a config file may send to which server.

A file that the user named, or that is in the user's own configuration folder, may name any. One that was only found in the
working folder may be a stranger's: it gets the keys that the user's own file allows for an origin, in its `[keys.env]`, and
Hugging Face's token for Hugging Face's hosts, where it is sent anyway; but not for dedicated endpoints, since any customer
may run a server there. Other keys are not read, and the errors of their targets say why.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_gateway.keys.credentials import TOKEN_VARIABLES, is_dedicated_endpoint, is_hugging_face, origin_of
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.secret import KeyReference
from hf_gateway.values.target import Target


@dataclass(frozen=True)
class EnvKeyRules:
    """What a config file from the working folder may read."""

    file: Path
    """That file."""
    own: Path
    """The user's own file, which has the rules."""
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Variable → the origins that it may be sent to."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """URLs of the router and the Hub, which some kinds use without a URL of their own."""

    def without_forbidden_key(self, target: Target) -> Target:
        """Return the target, without its key if the file must not read it."""
        if not isinstance(target.credential, KeyReference):
            return target
        refusal = self.refusal(target.credential.name, [target])
        if refusal is None:
            return target
        return dataclasses.replace(target, credential=dataclasses.replace(target.credential, refusal=refusal))

    def refusal(self, name: str, targets: Sequence[Target]) -> str | None:
        """Return why a variable is not sent to targets, and how to allow it; None if it may be sent.

        Args:
            name: of the variable; of a file its short form, `file:/PATH`.
            targets: those that would receive it.
        """
        urls = [target.url or self.origins.get(kind_of(target.kind).default_origin or "") for target in targets]
        places = [
            target.kind if url is None else origin_of(url)
            for target, url in zip(targets, urls, strict=True)
            if url is None or not (name in TOKEN_VARIABLES and is_hugging_face(url) and not is_dedicated_endpoint(url))
        ]
        missing = sorted({place for place in places if place not in self.allowed.get(name, frozenset())})
        if not missing:
            return None
        listed = ", ".join(f'"{place}"' for place in missing)
        path = name.removeprefix("file:")
        what, shown, written = (
            (f"the environment variable {name}", name, name)
            if path == name
            else (f"the key in {path}", path, f'"{name}"')
        )
        return (
            f"{self.file.absolute()} was found in the working folder, and wants {what} sent to "
            f"{' and '.join(missing)}; a file that you did not name may not do that, so {shown} was not read. If it is right, "
            f"allow it in {self.own}:\n  [keys.env]\n  {written} = [{listed}]\n  or name the file yourself, with "
            f"HF_GATEWAY_CONFIG={self.file.absolute()} or --config"
        )


def allowed_in(table: Mapping[str, object]) -> dict[str, frozenset[str]]:
    """Parse `[keys.env]`: variable → a URL or several. Raises ValueError with the variable's name for an invalid value."""
    found: dict[str, frozenset[str]] = {}
    for name, value in table.items():
        places = [value] if isinstance(value, str) else value
        if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
            raise ValueError(name)
        found[name] = frozenset(origin_of(place) if "://" in place else place for place in places)
    return found
