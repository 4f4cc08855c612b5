"""Translates httpx's exceptions."""

import httpx

from hf_gateway.errors import GatewayError
from hf_gateway.http.exchange import Exchange


def failure(exchange: Exchange, error: Exception) -> GatewayError | None:
    """Return the error for an exception of httpx; None for any other exception.

    Args:
        exchange: the request under way.
        error: what was raised.
    """
    words = str(error) or type(error).__name__
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return exchange.connect_failed(words)
        case httpx.ProxyError():
            return exchange.connect_failed(f"the proxy refuses: {words}")
        case httpx.TimeoutException():
            return exchange.too_late()
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return exchange.connection_broken(words)
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return exchange.uncallable(words)
        case httpx.HTTPError():
            return exchange.connection_broken(f"{type(error).__name__}: {words}")
        case UnicodeError():  # an invalid host name, such as one with a label of 64 letters, at its look-up
            return exchange.connect_failed(words)
    is_socks = type(error).__module__.partition(".")[0] == "socksio"
    return exchange.connect_failed(f"the proxy does not support SOCKS: {words}") if is_socks else None
