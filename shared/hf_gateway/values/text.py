"""Text that can be encoded."""


def encodable(text: str) -> str:
    """Return text that can be written in UTF-8: a lone surrogate, which names from JSON may contain, becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def utf8_bytes(text: str) -> int:
    """Return the length in UTF-8, lone surrogates included."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
