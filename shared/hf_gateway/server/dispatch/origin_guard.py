"""The first look at a request: from where it comes, before anything of it is read."""

from hf_gateway.server.access.bind import is_loopback
from hf_gateway.server.access.credentials import refuse_key_in_url
from hf_gateway.server.dispatch.call import Answer, Call


def check_origin(call: Call) -> Answer | None:
    """Refuse requests of foreign pages, for foreign names, and with keys in their URL; answer preflight requests.

    Notes on the call from where it comes, and whether its caller may be anonymous. Raises Problem.
    """
    scope, rules = call.scope, call.state.origins
    refuse_key_in_url(scope.get("query_string", b""), scope.get("raw_path") or scope["path"].encode())
    source = rules.check(scope, any_host=call.state.authenticator.needs_key)
    call.source = source
    call.extra += source.cors
    # By the address at which the request arrived, so that it holds for every ASGI server, however it was started.
    server = scope.get("server")
    beyond = server is not None and server[1] is not None and not is_loopback(server[0])
    call.may_be_anonymous = call.settings.insecure_no_auth or not beyond
    preflight = rules.preflight(source, scope["method"], scope["headers"])
    return None if preflight is None else Answer(status=204, headers=list(preflight))
