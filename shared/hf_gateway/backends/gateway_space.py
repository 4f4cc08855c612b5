"""The vector space of a target that is a server of this package: it reports its space, and each request demands it."""

import dataclasses
from collections.abc import Callable
from typing import Any

from hf_gateway.backends.served import is_commit
from hf_gateway.backends.vectors import VectorAbility
from hf_gateway.errors import ModelNotFound, PermissionDenied, Quarantined
from hf_gateway.runtime.effects import Effects
from hf_gateway.storage.notices import notice_once
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.wire.spaces import SPACE_HEADER, ReportedSpace

MAX_REQUESTS_COUNT = 3
"""How often a request is sent while its server reports another space each time."""


class GatewaySpace:
    """What a server of this package reports about its space; nothing for other servers, which are sent nothing more.

    The space that was reported first holds from then on. Such a server puts its model's prompts before texts itself, so that
    they are sent as they are, with their role.
    """

    def __init__(self, ability: VectorAbility, fetch: Callable[[str], Effects]) -> None:
        """Begin without a report.

        Args:
            ability: the ability of the target.
            fetch: makes the effects that ask for the space of an id; they return a `ReportedSpace`.
        """
        self._ability, self._fetch = ability, fetch
        self.reported: ReportedSpace | None = None
        """The space of the vectors; None for another kind of server, and before its first answer."""
        self._hidden = False

    def ask(self, encode: Callable[[], HttpRequest]) -> Effects:
        """Send a request for vectors; returns the `HttpResponse`, whose space is the one that was reported first.

        Args:
            encode: builds the request, by what is known of the server.

        Raises:
            Quarantined: the server answers in another space now; nothing of it is used.
        """
        named = None
        for _ in range(MAX_REQUESTS_COUNT):
            known = self.reported
            response: HttpResponse = yield from self._ability.ask(self._demanding(encode(), known))
            named = response.headers.get(SPACE_HEADER)
            if named is None or self._hidden or (known is not None and named == known.id):
                return response
            # It may know more of the same space by now; and what was sent first was meant for a server of another kind.
            try:
                self.note((yield from self._fetch(named)))
            except (ModelNotFound, PermissionDenied) as error:
                if known is not None:
                    raise
                self._hidden = True
                notice_once(
                    f"{self._label}: the server names its vector space, {named}, and does not describe it ({error.message}), so "
                    "it is used like any other server; let /v1/spaces through"
                )
                return response
        raise Quarantined(
            f"the server reports another vector space with each answer, {named} was the last", target=self._label
        )

    def note(self, reported: ReportedSpace | None) -> None:
        """Take a report; for a target that names no model, also as its declared space.

        Raises Quarantined if it differs from the space that was reported first.
        """
        known, target = self.reported, self._ability.target
        if reported is None:
            return
        if known is not None and (differences := known.space.differences(reported.space)):
            raise Quarantined(
                f"{self._label} answers in another vector space than before: {differences[0]}. Nothing of it was used. Its "
                f"configuration was changed: point the target at a chain of the space {known.id}, or build this chain, and "
                "what was made with it, again",
                target=self._label,
            )
        self.reported = reported
        if target.model is None and target.space is None:
            self._ability.declare(reported.space)

    def comparable(self) -> VectorSpace | None:
        """Return the reported space as far as it can be compared with the declared one; None if nothing was reported."""
        if self.reported is None:
            return None
        space, target, options = self.reported.space, self._ability.target, self._ability.options
        changes: dict[str, Any] = {}
        if target.model is None or target.space is not None:
            changes["model"] = self._ability.model_space().model
        if not (is_commit(target.revision) and is_commit(space.revision)):
            changes["revision"] = None
        # What this chain does with the vectors itself.
        if getattr(options, "dimensions", None) is not None:
            changes["dimension"] = None
        if getattr(options, "normalize", False):
            changes["normalized"] = None
        if not options.truncate:
            changes["max_tokens"] = None
        return dataclasses.replace(space, **changes)

    @property
    def _label(self) -> str:
        return self._ability.target.label

    @staticmethod
    def _demanding(request: HttpRequest, known: ReportedSpace | None) -> HttpRequest:
        if known is None:
            return request
        return dataclasses.replace(request, headers={**request.headers, SPACE_HEADER: known.id})
