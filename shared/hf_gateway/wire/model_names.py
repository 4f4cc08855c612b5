"""Compares the model that was named with the one that a server says it answered with.

Servers know one model by many names: with or without its organisation, with a tag, a date, a quantisation, a provider, as a file.
So two names mean two models only where they contradict each other: in the family, its version, the number of parameters, or the
variant. A name that says none of these (`default`, `fast`, a path on the server) may stand for anything.
"""

import re
from collections.abc import Collection

_FAMILIES = (
    "aya|baichuan|bloom|claude|codestral|command|dbrx|deepseek|devstral|dialogpt|ernie|falcon|gemini|gemma|glm|gpt|granite|grok|hermes|"
    "hunyuan|internlm|jamba|kimi|llama|magistral|minimax|ministral|mistral|mixtral|nemotron|nova|olmo|phi|pixtral|qwen|qwq|seed|"
    "smollm|solar|starcoder|stablelm|yi|zephyr"
)
_FAMILY = re.compile(rf"(?<![a-z])(?:code|tiny|meta)?({_FAMILIES})(?![a-z])(?:-?v?(\d)(?:[.p-](\d))?(?![\dbmkx]))?")
_SIZE = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?[bm]|\d+x\d+b)(?![a-z\d])")
_VARIANT = re.compile(
    r"(?<![a-z])(nano|mini|small|medium|large|max|flash|air|coder|math|scout|maverick|opus|sonnet|haiku)(?![a-z])"
)


def contradict(named: str, served: str) -> bool:
    """Return whether two names cannot be those of one model; unknown names contradict nothing."""
    one, other = _base_name(named), _base_name(served)
    if any(_disjoint(pattern.findall(one), pattern.findall(other)) for pattern in (_SIZE, _VARIANT)):
        return True
    mine, theirs = _families(one), _families(other)
    if _disjoint(mine, theirs):
        return True
    return any(_versions_differ(mine[family], theirs[family]) for family in mine.keys() & theirs.keys())


def _base_name(name: str) -> str:
    """Return the name without its organisation or folders, which say nothing of the model."""
    return name.lower().rstrip("/").rpartition("/")[2].replace("_", "-")


def _families(name: str) -> dict[str, tuple[str, str]]:
    """Return each family in a name, with its major and its minor version, "" where the name does not say it."""
    return {family: (major, minor) for family, major, minor in _FAMILY.findall(name)}


def _disjoint(one: Collection[str], other: Collection[str]) -> bool:
    return bool(one) and bool(other) and set(one).isdisjoint(other)


def _versions_differ(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Return whether versions differ in what both of them say."""
    return any(mine and theirs and mine != theirs for mine, theirs in zip(one, other, strict=True))
