"""Whether a URL is called directly, or through a proxy that the environment names."""

from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies

from hf_gateway.values.redaction import shown_url


@dataclass(frozen=True)
class Proxies:
    """What the environment says (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, or the system's settings), read once."""

    schemes: frozenset[str] = frozenset()
    exempt: frozenset[str] = frozenset()

    @classmethod
    def of_environment(cls) -> "Proxies":
        """Read it as httpx does."""
        found = getproxies()
        exempt = frozenset(host.strip().lower() for host in found.get("no", "").split(","))
        schemes = frozenset(name for name in ("http", "https", "all") if found.get(name))
        return cls() if "*" in exempt else cls(schemes, exempt)

    def direct(self, url: str) -> bool:
        """Say whether no proxy is meant for this URL for sure: what only a part of the rules exempts, httpx judges by all."""
        if not self.schemes:
            return True
        parts = urlsplit(url)
        return not self.schemes & {parts.scheme, "all"} or (parts.hostname or "") in self.exempt


def named_proxies() -> str:
    """Return the proxies that the environment names, as messages may show them."""
    found = {name: url for name, url in getproxies().items() if name in ("http", "https", "all")}
    return ", ".join(f"{name.upper()}_PROXY={shown_url(url)}" for name, url in found.items())
