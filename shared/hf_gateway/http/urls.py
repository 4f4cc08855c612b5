"""URLs for HTTP libraries."""

import httpx


def parse_url(url: str) -> httpx.URL:
    """Return an http or https URL, its host in ASCII and its path escaped. Raises ValueError for any other."""
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    if found.scheme not in ("http", "https") or not found.host:
        raise ValueError("it is not a URL of HTTP")
    return found
