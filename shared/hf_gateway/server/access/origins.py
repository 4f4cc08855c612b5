"""From where a request comes: the Host that it names, the web page that sends it, the proxies that it came through.

A browser lets any page send requests to a server on loopback, and a name of the attacker's may point to it (DNS rebinding). So a
page of another origin is refused unless it is listed, and without keys the Host has to be an address, a name of loopback, or
listed. Nothing here reads a URL that a client composed.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hf_gateway.errors import ConfigError
from hf_gateway.server.access.caller import RawHeaders
from hf_gateway.server.problems import Problem

_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\s]+)")
_SAFE = ("GET", "HEAD", "OPTIONS")
_PORTS = {"http": "80", "https": "443"}
ANY_ORIGIN = "*"
EXPOSED = b", ".join(
    [
        b"x-request-id, x-hf-gateway-served-by, x-hf-gateway-space, retry-after, x-should-retry",
        *(
            b"x-ratelimit-%b-%b" % (part, unit)
            for part in (b"limit", b"remaining", b"reset")
            for unit in (b"requests", b"tokens")
        ),
    ]
)
"""Headers of an answer that a listed page may read."""
ALLOWED_HEADERS = (
    b"authorization, content-type, x-api-key, api-key, apikey, x-client-info, traceparent, x-request-id, "
    b"x-hf-gateway-space, x-hf-gateway-target"
)
"""Headers of a request that a listed page may send."""
PREFLIGHT_AGE_S = 600
"""Seconds for which a browser may remember the answer to a preflight request."""
MAX_CHECKED_ENTRIES = 1000
"""How many different requests are remembered that were accepted."""
MAX_CHECKED_BYTES = 500
"""Of the headers of one of them."""
_LOOKED_AT = frozenset(
    {b"host", b"origin", b"sec-fetch-site", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-for"}
)
"""The headers by which it is decided."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Source:
    """From where a request comes."""

    address: str | None
    """The client's address; of a trusted proxy's request, that of the proxy's own client. None for a Unix socket."""
    scheme: str
    """"http", or "https" if a trusted proxy says so."""
    own_page: bool
    """Whether it may be of this server's own pages, so that a cookie counts."""
    cors: tuple[tuple[bytes, bytes], ...] = ()
    """Headers for the answer."""


class OriginRules:
    """The rules of one server."""

    def __init__(
        self,
        *,
        cors_origins: Iterable[str] = (),
        allowed_hosts: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
    ) -> None:
        """Parse the settings.

        Args:
            cors_origins: origins whose pages may call, or "*".
            allowed_hosts: values of Host, without a port, beside addresses and names of loopback.
            trusted_proxies: addresses and networks whose `X-Forwarded-*` is believed.

        Raises:
            ConfigError: an entry is invalid.
        """
        self._any_origin = False
        self._origins: set[tuple[str, str]] = set()
        for each in cors_origins:
            if each == ANY_ORIGIN:
                self._any_origin = True
            elif (origin := _parsed_origin(each.rstrip("/"))) is not None:
                self._origins.add(origin)
            else:
                raise ConfigError(f"[server] cors_origins: {each!r} is not an origin, such as https://app.example.org")
        self._checked: dict[tuple[Any, ...], Source] = {}
        """What was accepted, by all that the decision depends on: most requests of a client differ in nothing of that."""
        self._hosts = frozenset(host.lower().rstrip(".") for host in allowed_hosts)
        self._proxies = tuple(map(_network, trusted_proxies))

    @property
    def remembered(self) -> int:
        """How many different requests are remembered that were accepted."""
        return len(self._checked)

    def check(self, scope: Any, *, any_host: bool) -> Source:
        """Return from where a request comes, if it may come from there.

        Args:
            scope: of ASGI.
            any_host: whether any Host is accepted, as callers need a key, and no list is configured.

        Raises:
            Problem: 400 for an invalid Host, 403 for one that is not accepted, and for another origin's page.
        """
        peer = scope["client"][0] if scope.get("client") else None
        found = tuple([each for each in scope["headers"] if each[0] in _LOOKED_AT])
        key = (found, peer, scope["method"], scope.get("scheme"), any_host)
        if (known := self._checked.get(key)) is None:
            known = self._check(scope, found, peer, any_host=any_host)
            if sum(len(value) for _, value in found) <= MAX_CHECKED_BYTES:
                if len(self._checked) >= MAX_CHECKED_ENTRIES:
                    self._checked.clear()
                self._checked[key] = known
        return known

    def _check(self, scope: Any, headers: RawHeaders, peer: str | None, *, any_host: bool) -> Source:
        """Look at a request as `check`, by the headers of `_LOOKED_AT`."""
        trusted = self._is_trusted(peer)
        host, port = self._host(headers, trusted=trusted)
        if not (any_host and not self._hosts) and not self._accepts_host(host):
            raise Problem(
                403,
                "host_not_allowed",
                f"this server does not answer under the name {host!r}: another site's name may have been pointed at it. "
                "If the name is yours, add it to [server] allowed_hosts",
            )
        scheme = self._scheme(headers, trusted=trusted) or scope.get("scheme", "http")
        address = self._client(headers, peer) if trusted else peer
        own, cors = self._page(headers, scope["method"], host, port)
        return Source(address, scheme, own, cors)

    def preflight(self, source: Source, method: str, headers: RawHeaders) -> tuple[tuple[bytes, bytes], ...] | None:
        """Return the headers that answer a preflight request, beside those of the source; None for any other request.

        Args:
            source: of the request.
            method: of the request.
            headers: of the request.
        """
        if method != "OPTIONS" or not source.cors or not _values(headers, b"access-control-request-method"):
            return None
        return (
            (b"access-control-allow-methods", b"GET, POST, PATCH, DELETE, OPTIONS"),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", b"%d" % PREFLIGHT_AGE_S),
        )

    def _is_trusted(self, peer: str | None) -> bool:
        if not self._proxies or peer is None:
            return False
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)

    def _host(self, headers: RawHeaders, *, trusted: bool) -> tuple[str, str | None]:
        values = _values(headers, b"host")
        if trusted and (forwarded := [value for name, value in headers if name == b"x-forwarded-host"]):
            values = [forwarded[-1].rpartition(b",")[2].strip()]
        found = _HOST.fullmatch(values[0]) if len(values) == 1 else None
        if found is None:
            raise Problem(400, "invalid_host", "a request has one Host header with a name or an address, and a port")
        name = (found[1] or found[2]).decode("ascii").lower().rstrip(".")
        return name, None if found[3] is None else found[3].decode("ascii")

    def _accepts_host(self, host: str) -> bool:
        if host == "localhost" or host.endswith(".localhost") or host in self._hosts:
            return True
        try:
            # An address cannot be pointed elsewhere by a name server.
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def _scheme(self, headers: RawHeaders, *, trusted: bool) -> str | None:
        values = [value for name, value in headers if name == b"x-forwarded-proto"] if trusted else []
        found = values[-1].rpartition(b",")[2].strip().lower() if values else b""
        return found.decode("ascii") if found in (b"http", b"https") else None

    def _client(self, headers: RawHeaders, peer: str | None) -> str | None:
        """Return the last address that is not of a trusted proxy: what stands before it, the client may have written."""
        chain = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        for each in reversed(chain.decode("latin-1").split(",")):
            text = each.strip()
            try:
                ipaddress.ip_address(text)
            except ValueError:
                break
            peer = text
            if not self._is_trusted(text):
                break
        return peer

    def _page(
        self, headers: RawHeaders, method: str, host: str, port: str | None
    ) -> tuple[bool, tuple[tuple[bytes, bytes], ...]]:
        """Return whether the request may be of this server's own page, and the headers for that of a listed origin."""
        origins = {value.decode("latin-1") for value in _values(headers, b"origin")}
        sites = _values(headers, b"sec-fetch-site")
        if len(origins) > 1:
            raise Problem(400, "invalid_origin", "the request has two different Origin headers")
        if origins:
            (text,) = origins
            origin = _parsed_origin(text)
            if origin is not None and origin[1] == _place(host, port or _PORTS.get(origin[0])):
                if b"cross-site" in sites:
                    raise _foreign(text)
                return True, ()
            if self._any_origin or (origin is not None and origin in self._origins):
                allowed = b"*" if self._any_origin else text.encode("latin-1")
                return False, (
                    (b"access-control-allow-origin", allowed),
                    (b"access-control-expose-headers", EXPOSED),
                    (b"vary", b"origin"),
                )
            raise _foreign(text)
        if b"cross-site" in sites or (b"same-site" in sites and method not in _SAFE):
            raise _foreign(None)
        return b"same-site" not in sites, ()


def _values(headers: RawHeaders, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            f"[server] trusted_proxies: {text!r} is neither an address nor a network, such as 10.0.0.0/8"
        ) from None


def _parsed_origin(text: str) -> tuple[str, str] | None:
    """Return scheme and place (name and port) of an origin; None for `null` and what is not one."""
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        return None
    host = _HOST.fullmatch(found[2].encode("latin-1", "replace"))
    if host is None:
        return None
    port = host[3].decode("ascii") if host[3] is not None else _PORTS.get(found[1])
    return found[1], _place((host[1] or host[2]).decode("ascii").rstrip("."), port)


def _place(host: str, port: str | None) -> str:
    return f"{host}:{port or ''}"


def _foreign(origin: str | None) -> Problem:
    page = f"a page of {origin[:200]!r}" if origin is not None else "a page of another site"
    return Problem(
        403,
        "foreign_origin",
        f"{page} may not call this server from a browser; if it should, add its origin to [server] cors_origins",
    )
