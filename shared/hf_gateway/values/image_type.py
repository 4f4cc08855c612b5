"""The type of an image, by its first bytes."""

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_RIFF, _WEBP = b"RIFF", slice(8, 12)
SUPPORTED = "PNG, JPEG, WebP or GIF"
"""The types that are recognised, for messages."""


def image_type(data: bytes) -> str | None:
    """Return the media type of an image (PNG, JPEG, WebP, GIF) by its signature; None for other bytes."""
    if data.startswith(_RIFF) and data[_WEBP] == b"WEBP":
        return "image/webp"
    return next((found for signature, found in _SIGNATURES if data.startswith(signature)), None)
