"""The tenant and the user on whose behalf calls are made."""

import contextvars
from contextlib import AbstractContextManager, ContextDecorator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tags:
    """On whose behalf a call is made."""

    tenant: str | None = None
    """Who is billed."""
    user: str | None = None
    """Who called."""
    key: str | None = None
    """Public part of the key by which the call reached a server; budgets of the key apply beside the tenant's."""
    request: str | None = field(default=None, compare=False)
    """Id of the server's request that the call is part of. Calls that differ in it alone are of one caller."""


_NO_TAGS = Tags()
_tags: contextvars.ContextVar[Tags] = contextvars.ContextVar("hf_gateway_tags", default=_NO_TAGS)


def tagged(
    tenant: object = None, user: object = None, *, key: object = None, request: object = None
) -> AbstractContextManager[Tags]:
    """Attribute every call within to a tenant and a user; a tag that is not given keeps its outer value.

    Args:
        tenant: Who is billed. A value that is not a string is used as its `str()`, in the ledger and for budgets: 42 is the
            tenant "42".
        user: Who calls; likewise.
        key: Public part of the key by which the call reached a server; likewise.
        request: Id of the server's request that the call is part of; likewise.

    Example:
        ```python
        with tagged(tenant="acme"):
            embeddings.embed_query("Who is billed for this?")
        ```
    """
    return _Tagged(tenant, user, key, request)


class _Tagged(ContextDecorator):
    """Tags within a `with`: one in every request of a server, where a generator would take most of the time."""

    def __init__(self, *given: object) -> None:
        """given: tenant, user, key and request."""
        self._given = given
        self._tokens: list[contextvars.Token[Tags]] = []

    def _recreate_cm(self) -> "_Tagged":
        return _Tagged(*self._given)  # for each call of a function that it decorates

    def __enter__(self) -> Tags:
        outside = _tags.get()
        tenant, user, key, request = self._given
        tags = Tags(
            outside.tenant if tenant is None else _name(tenant),
            outside.user if user is None else _name(user),
            outside.key if key is None else _name(key),
            outside.request if request is None else _name(request),
        )
        self._tokens.append(_tags.set(tags))
        return tags

    def __exit__(self, *raised: object) -> None:
        _tags.reset(self._tokens.pop())


def _name(value: object) -> str:
    # A member of an enumeration of strings is its string, by which a budget knows it.
    return str.__str__(value) if isinstance(value, str) else str(value)


def tags() -> Tags:
    """Return the tags of calls that are made here."""
    return _tags.get()
