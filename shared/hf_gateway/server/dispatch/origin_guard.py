"""The first look at a request: from where it comes, before anything of it is read."""

from hf_gateway.server.access.bind import is_loopback
from hf_gateway.server.access.credentials import refuse_key_in_url
from hf_gateway.server.access.origins import OriginRules
from hf_gateway.server.dispatch.call import Answer, Call


class OriginGuard:
    """Refuses requests of foreign pages, for foreign names, and with keys in their URL; answers preflight requests."""

    def __init__(self, rules: OriginRules, *, insecure: bool = False) -> None:
        """Take the rules.

        Args:
            rules: of this server.
            insecure: whether callers without a key are served beyond loopback.
        """
        self._rules, self._insecure = rules, insecure

    def __call__(self, call: Call) -> Answer | None:
        """Check a request, and note what its caller may be. Raises Problem."""
        scope = call.scope
        refuse_key_in_url(scope.get("query_string", b""), scope.get("raw_path") or scope["path"].encode())
        source = self._rules.check(scope, any_host=call.state.authenticator.needs_key)
        call.source = source
        call.extra += source.cors
        # By the address at which the request arrived, so that it holds for every ASGI server, however it was started.
        server = scope.get("server")
        call.may_be_anonymous = self._insecure or server is None or server[1] is None or is_loopback(server[0])
        preflight = self._rules.preflight(source, scope["method"], scope["headers"])
        return None if preflight is None else Answer(status=204, headers=list(preflight))
