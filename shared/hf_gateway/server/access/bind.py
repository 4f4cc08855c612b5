"""Where the server may listen: without any way to tell callers apart, at loopback alone."""

import functools
import ipaddress

from hf_gateway.errors import ConfigError
from hf_gateway.values.logs import logger

log = logger(__name__)


@functools.lru_cache(maxsize=64)  # asked for each request, of the server's own addresses
def is_loopback(host: str) -> bool:
    """Return whether an address to listen at can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, *, needs_key: bool, insecure: bool) -> None:
    """Refuse to serve every machine of the network without keys; log it where that is wanted.

    Args:
        host: the address to listen at.
        needs_key: whether callers need a key or a token.
        insecure: whether callers without a key are to be served anyway.

    Raises:
        ConfigError: callers of other machines would need no key.
    """
    if needs_key or is_loopback(host):
        return
    if not insecure:
        raise ConfigError(
            f"listening at {host} would serve every machine that can reach it, without a key: make one first with "
            "`hf-gateway keys create --name NAME`, set require_key in [server], listen at 127.0.0.1, or say --insecure-no-auth"
        )
    log.warning(
        "NO AUTHENTICATION: every machine that can reach %s may use all chains, at your cost, and read their usage "
        "(--insecure-no-auth)",
        host,
    )
