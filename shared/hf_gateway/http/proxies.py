"""Proxies from the environment."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from hf_gateway.errors import ConfigError
from hf_gateway.values.redaction import shown_url

_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True)
class Proxy:
    """A proxy."""

    address: str
    """Scheme, host and port, without the login."""
    login: tuple[str, str] | None = field(default=None, repr=False)
    """Name and password."""

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS5 rather than HTTP."""
        return self.address.startswith("socks")

    @classmethod
    def parse(cls, variable: str, value: str) -> "Proxy":
        """Parse an environment variable. Raises ConfigError, which shows no password.

        Args:
            variable: its name.
            value: its value.
        """
        from hf_gateway.http.urls import parse_url

        url = value if "://" in value else f"http://{value}"
        advice = ""
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
            parse_url(f"http://{f'[{host}]' if ':' in host else host}")
            if scheme not in _SCHEMES:
                raise ValueError(scheme)
        except ValueError:
            advice = "write http://host:port, or the host that is called into NO_PROXY"
        if not advice and scheme.startswith("socks") and find_spec("socksio") is None:
            advice = "a SOCKS proxy needs the package socksio: pip install socksio"
        if advice:
            raise ConfigError(f"the proxy {variable}={shown_url(url)} cannot be used; {advice}")
        login = (unquote(parts.username), unquote(parts.password or "")) if parts.username is not None else None
        address = f"{scheme}://{f'[{host}]' if ':' in host else host}"
        return cls(address if port is None else f"{address}:{port}", login)


@dataclass(frozen=True)
class Proxies:
    """The environment's settings (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, or the system's), read once."""

    proxies: dict[str, str] = field(default_factory=dict)
    """URLs by scheme, and the exceptions under "no"."""
    _verdicts: dict[tuple[str, str], Proxy | None] = field(default_factory=dict, compare=False)

    @classmethod
    def of_environment(cls) -> "Proxies":
        """Read the settings as the standard library does."""
        found = {
            name: value for name, value in getproxies().items() if name in ("http", "https", "all", "no") and value
        }
        exempt = [host.strip() for host in found.get("no", "").split(",")]
        return cls() if "*" in exempt or not found.keys() - {"no"} else cls(found)

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy for a URL; None if it is called directly. Raises ConfigError."""
        if not self.proxies:
            return None
        try:
            parts = urlsplit(url)
        except ValueError:  # the call itself will report it
            return None
        key = parts.scheme, parts.netloc.rpartition("@")[2].lower()
        if key not in self._verdicts:
            self._verdicts[key] = self._judge(*key, parts.hostname or "")
        return self._verdicts[key]

    def _judge(self, scheme: str, place: str, host: str) -> Proxy | None:
        name = scheme if scheme in self.proxies else "all"
        value = self.proxies.get(name)
        exempt = [name.strip().lower().lstrip(".") for name in self.proxies.get("no", "").split(",")]
        if not value or any(name and (name in (host, place) or host.endswith(f".{name}")) for name in exempt):
            return None
        return Proxy.parse(f"{name.upper()}_PROXY", value)
