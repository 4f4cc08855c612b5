"""Compares the model that was asked for with the one that a server reports.

Servers have many names for one model: with or without its organisation, with a tag, date, quantisation or provider, as a file. So
two names denote two models only if they contradict each other: in the family, its version, the number of parameters, or the
variant. A name without any of these (`default`, `fast`, a path on the server) may denote any model.
"""

import re
from collections.abc import Collection
from functools import lru_cache

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


@lru_cache(256)
def contradict(named: str, served: str) -> bool:
    """Return whether two names cannot denote the same model; unknown names contradict nothing.

    Args:
        named: the model that was asked for.
        served: the model that the server reports.
    """
    one, other = _base_name(named), _base_name(served)
    if any(_disjoint(pattern.findall(one), pattern.findall(other)) for pattern in (_SIZE, _VARIANT)):
        return True
    mine, theirs = _families(one), _families(other)
    if _disjoint(mine, theirs):
        return True
    return any(_versions_differ(mine[family], theirs[family]) for family in mine.keys() & theirs.keys())


def _base_name(name: str) -> str:
    """Return the name without its organisation or folders."""
    return name.lower().rstrip("/").rpartition("/")[2].replace("_", "-")


def _families(name: str) -> dict[str, tuple[str, str]]:
    """Return each family in a name, with its major and minor version, "" if the name does not contain it."""
    return {family: (major, minor) for family, major, minor in _FAMILY.findall(name)}


def _disjoint(one: Collection[str], other: Collection[str]) -> bool:
    return bool(one) and bool(other) and set(one).isdisjoint(other)


def _versions_differ(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Return whether two versions differ in a part that both names contain."""
    return any(mine and theirs and mine != theirs for mine, theirs in zip(one, other, strict=True))
