"""What httpx's exceptions mean."""

import httpx

from hf_gateway.errors import GatewayError
from hf_gateway.http.exchange import Exchange


def failure(exchange: Exchange, error: Exception) -> GatewayError | None:
    """Say what an exception of httpx means; None for a stranger."""
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
        case UnicodeError():  # a name that cannot be one, such as of 64 letters, when it is looked up
            return exchange.connect_failed(words)
    is_socks = type(error).__module__.partition(".")[0] == "socksio"
    return exchange.connect_failed(f"the proxy does not speak SOCKS: {words}") if is_socks else None
