"""The account and permissions of a token: the Hub's `/api/whoami-v2`, and whether it may write to a repository.

Sources: huggingface.co/docs/hub/security-tokens for the roles; the fields as huggingface_hub and gradio read them. A token has
the role `read` or `write`, or is fine-grained: then it lists permissions, some global, some for one user, organisation or
repository.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hf_gateway.errors import BadResponse
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.wire.fields import list_of, text_of
from hf_gateway.wire.http import get, read_json

READ = frozenset({"repo.content.read", "repo.read", "repo.write"})
INFER = "inference.serverless.write"
WRITE = "repo.write"


@dataclass(frozen=True)
class HubAccount:
    """The account of a token, and what the token may do."""

    name: str
    """The user, or the organisation of its token."""
    token: str | None = None
    """The token's own name on the settings page."""
    role: str | None = None
    """`read`, `write`, `fineGrained`; None for a login by OAuth, which does not report it."""
    organizations: Mapping[str, str | None] | None = None
    """Name → role in it, None if unknown."""
    permissions: Mapping[str, frozenset[str]] | None = None
    """Of a fine-grained token, entity (`user:ada`, `org:acme`, `model:acme/x`; `` for everywhere) → its permissions."""

    @property
    def can_read(self) -> bool | None:
        """Whether it may read at least some of its user's private repositories; None if unknown."""
        return self._may(lambda granted: bool(granted & READ), always=("read", "write"))

    @property
    def can_infer(self) -> bool | None:
        """Whether it may call Inference Providers; None if unknown, as for a read token."""
        return None if self.role == "read" else self._may(lambda granted: INFER in granted, always=("write",))

    @property
    def can_write(self) -> bool | None:
        """Whether it may write to some repository; None if unknown."""
        return self._may(lambda granted: WRITE in granted, always=("write",))

    def can_write_to(self, repo_id: str) -> bool | None:
        """Return whether it may write to a repository, which need not exist yet; None if unknown."""
        owner = repo_id.partition("/")[0]
        role = (self.organizations or {}).get(owner, "")
        if owner != self.name and role == "":
            return False  # neither its user nor one of its organisations
        if owner != self.name and role == "read":
            return False
        if self.role != "fineGrained":
            return self.can_write
        granted = self.permissions or {}
        places = ("", f"user:{owner}", f"org:{owner}", f"model:{repo_id}")
        return any(WRITE in granted.get(place, ()) for place in places)

    def in_words(self) -> list[str]:
        """Return what the token may do, one sentence each."""
        kinds = {"read": "a read token", "write": "a write token", "fineGrained": "a fine-grained token"}
        said = [kinds.get(self.role or "", "a token whose role the Hub does not say")]
        for able, what in (
            (self.can_read, "read private repositories"),
            (self.can_infer, "call Inference Providers"),
            (self.can_write, "write to repositories"),
        ):
            said.append(f"{'may' if able else 'may not' if able is False else 'perhaps may'} {what}")
        if self.role == "fineGrained" and self.permissions:
            places = [place or "everywhere" for place, granted in self.permissions.items() if WRITE in granted]
            if places:
                said[-1] += f" ({', '.join(sorted(places))})"
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
        return {
            "name": self.name,
            "token": self.token,
            "role": self.role,
            "organizations": sorted(self.organizations or {}),
            "can_read": self.can_read,
            "can_infer": self.can_infer,
            "can_write": self.can_write,
        }

    def _may(self, granted: Callable[[frozenset[str]], bool], *, always: tuple[str, ...]) -> bool | None:
        if self.role == "fineGrained":
            return any(granted(each) for each in (self.permissions or {}).values())
        return self.role in always if self.role in ("read", "write") else None


def encode_whoami(hub: str) -> HttpRequest:
    """Build the request for a token's account."""
    return get(f"{hub}/api/whoami-v2")


def decode_whoami(response: HttpResponse, *, target: str = "the Hub") -> HubAccount:
    """Read a token's account.

    Args:
        response: the server's response.
        target: label for errors.

    Raises:
        AuthenticationFailed: the token is invalid.
        BadResponse: the answer is not an account.
    """
    data = read_json(response, target=target)
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise BadResponse("does not report whose token it is", target=target)
    token = _dict(_dict(data.get("auth")).get("accessToken"))
    role = token.get("role")
    organizations = {
        each["name"]: text_of(each.get("roleInOrg"))
        for each in list_of(data.get("orgs"))
        if isinstance(each, dict) and isinstance(each.get("name"), str)
    }
    return HubAccount(
        data["name"],
        text_of(token.get("displayName")),
        role if isinstance(role, str) else None,
        organizations,
        _permissions(_dict(token.get("fineGrained"))) if role == "fineGrained" else None,
    )


def encode_write_check(hub: str, repo_id: str) -> HttpRequest:
    """Build the request that checks whether the token may write to an existing repository.

    Args:
        hub: the Hub's base URL.
        repo_id: owner and name.
    """
    return get(f"{hub}/api/models/{quote(repo_id)}/auth-check/write")


def _permissions(fine_grained: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    found = {"": frozenset(map(str, list_of(fine_grained.get("global"))))}
    for each in list_of(fine_grained.get("scoped")):
        if isinstance(each, dict):
            entity = _dict(each.get("entity"))
            place = f"{entity.get('type')}:{entity.get('name')}"
            found[place] = found.get(place, frozenset()) | frozenset(map(str, list_of(each.get("permissions"))))
    return found


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
