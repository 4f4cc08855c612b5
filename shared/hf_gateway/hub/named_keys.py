"""Finds keys and passwords without a recognisable form by the name that they are assigned to.

Searches settings (a training's configuration, JSON, YAML) and texts with tables, lists, assignments or command-line
options. Findings are reported by name, never by value.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hf_gateway.values.redaction import may_name_key, names_key

MIN_KEY_CHARS = 6
"""Minimum length of a value in a text that is taken for a key."""
MAX_TEXT_CHARS = 1000
"""Maximum length of a setting's value that is searched as a text; a longer one is a template."""

# After a name: quotes and marks of Markdown, then `:`, `=`, `|` or the next cell of an HTML table.
_NAME = r"(?<![\w.])(?P<name>[A-Za-z][\w.-]{0,80}(?: [A-Za-z][\w-]{0,30}){0,2})"
_BETWEEN = r"[\"'`*_)\]]{0,4}[ \t]{0,20}(?:=>|[:=|]|</t[dh]>\s{0,10}<t[dh][^>]{0,100}>)[ \t\"'`*|:=]{0,20}"
_VALUE = r"(?P<value>[^\s\"'`|<>,;)\]}]{4,})(?P<rest>[^\n|]{0,40})"
_ASSIGNED = re.compile(rf"{_NAME}{_BETWEEN}(?={_VALUE})")
_OPTION = re.compile(rf"--(?P<name>[A-Za-z][\w.-]{{0,80}})[ =]{{1,4}}[\"']?(?={_VALUE})")

_PLACEHOLDER = re.compile(
    r"<.*|\$\{?\w+\}?|\{.*|%[sd(].*|your.*|insert.*|replace.*|enter.*|x{3,}|\*{3,}|\.{3,}|…|hf_x{3,}|none|null|true|false|nil"
    r"|n/a|str|string|int|bool|optional|required|hidden|redacted|masked|removed|secret|password|token|key|value|changeme"
    r"|os\..*|env:\w+|environ.*|getenv.*|getpass.*|userdata.*|(?:self|args|config|settings|cfg)\..*|https?://[^@]*|[a-z_.]+\(.*"
    r"|[A-Z][A-Z0-9_]*_(?:KEY|TOKEN|SECRET|PASSWORD)",
    re.IGNORECASE,
)
# Services whose keys are assigned to the service's own name, as are names of runs and projects, which are shorter.
_SERVICES = frozenset({
    "anthropic", "aws", "azure", "clearml", "cohere", "comet", "dagshub", "discord", "gemini", "github", "gitlab", "groq",
    "huggingface", "langsmith", "mistral", "mlflow", "neptune", "openai", "replicate", "slack", "telegram", "wandb",
})  # fmt: skip
_LONG_RUN = re.compile(r"(?=[^0-9]*[0-9]|[^A-Z]*[A-Z][^a-z]*[a-z])[A-Za-z0-9+/=]{16,}")
_SPECIAL_TOKEN = re.compile(r"<[^>]{0,60}>|\[[^\]]{0,60}\]")


def settings_with_keys(value: Any, at: str = "", *, under_key: bool = False) -> Iterator[str]:
    """Yield the path to each value that is a key by its own name or the name of an enclosing value.

    Args:
        value: mappings, lists or a single value.
        at: path to the value.
        under_key: whether an enclosing value has the name of a key.
    """
    if isinstance(value, Mapping):
        pair = [value.get("name", value.get("key")), value.get("value")]
        if isinstance(pair[0], str) and pair[1] is not None:
            yield from settings_with_keys(pair[1], f"{at}.{pair[0]}" if at else pair[0], under_key=under_key)
        for name, each in value.items():
            way = f"{at}.{name}" if at else str(name)
            yield from settings_with_keys(each, way, under_key=under_key or names_key(str(name)))
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from settings_with_keys(each, at, under_key=under_key)
    elif _is_key(at, value, under_key=under_key) or (
        isinstance(value, str) and len(value) <= MAX_TEXT_CHARS and "{%" not in value and any(keys_in_text(value))
    ):
        yield at


def keys_in_text(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and name of each value in a text that is a key by its name."""
    line, end = 1, 0
    for pattern in (_ASSIGNED, _OPTION):
        line, end = 1, 0
        for found in pattern.finditer(text):
            line, end = line + text.count("\n", end, found.start()), found.start()
            name = found["name"].split(" ", 1)[-1] if " " in found["name"] else found["name"]
            if _is_written_key(name, found["value"].rstrip(".:"), found["rest"]):
                yield line, name


def _is_key(name: str, value: Any, *, under_key: bool) -> bool:
    if value is None or isinstance(value, bool) or value == "" or _PLACEHOLDER.fullmatch(str(value)):
        return False
    if under_key or names_key(name) or _is_of_service(name, str(value)):
        return True
    return may_name_key(name.rpartition(".")[2]) and isinstance(value, str) and _looks_random(value)


def _is_written_key(name: str, value: str, rest: str) -> bool:
    if len(value) < MIN_KEY_CHARS or _PLACEHOLDER.fullmatch(value):
        return False
    if _is_of_service(name, value):
        return True
    last = name.split(" ")[-2:]
    if not (names_key(" ".join(last)) or may_name_key(last[-1])):
        return False
    if not may_name_key(last[-1]) and " " in name:
        return False  # "the secret sauce: …"
    if _looks_random(value):
        return True
    # A single word may be a password; followed by more words, it is a sentence.
    return names_key(" ".join(last)) and not re.match(r"[\"'`*]{0,4}[ \t]+[A-Za-z]", rest)


def _is_of_service(name: str, value: str) -> bool:
    return name.rpartition(".")[2].lower() in _SERVICES and _LONG_RUN.fullmatch(value) is not None


def _looks_random(value: str) -> bool:
    """Return whether a value has digits, mixed case or great length, unlike words and a model's special tokens."""
    value = re.sub(r"^(?:Bearer|Basic|token)\s+", "", value, flags=re.IGNORECASE)
    if len(value) < 8 or re.search(r"\s", value) or _SPECIAL_TOKEN.fullmatch(value):
        return False
    mixed = bool(re.search(r"\d", value)) or bool(re.search(r"[a-z][A-Z]|[A-Z][a-z].*[A-Z]", value))
    return mixed or len(value) >= 32
