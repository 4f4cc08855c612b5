r"""Files of variables (`.env`), for the commands and the server.

The classes never read one: that would change the environment of the program that uses them.
One `NAME=value` a line, `export ` before it allowed, `#` begins a comment. A value in single quotes is taken as it is; in double
quotes `\n`, `\t`, `\"`, `\\` and `\$` are escapes. Nothing is expanded.
"""

import re
from collections.abc import MutableMapping
from pathlib import Path

from hf_gateway.errors import ConfigError

_LINE = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*=\s*
    (?: '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" | (?P<plain>[^'"\s#](?:[^'"#]|(?<!\s)\#)*?|) )
    \s*(?:(?<=\s)\#.*)?$""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def parse_env_file(text: str, name: str) -> dict[str, str]:
    """Return the variables of a file.

    Args:
        text: its content.
        name: of the file, for errors.

    Raises:
        ConfigError: a line is not a variable; names the line and shows nothing of it, as it may be a key.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"{name}:{number}: a line is NAME=value, with quotes around a value that has quotes or # in it"
            )
        if (quoted := match["double"]) is not None:
            found[match["name"]] = re.sub(r"\\(.)", lambda each: _ESCAPES.get(each[1], each[0]), quoted)
        else:
            found[match["name"]] = match["single"] if match["single"] is not None else match["plain"]
    return found


def load_env_file(path: Path, environment: MutableMapping[str, str]) -> None:
    """Add the variables of a file to an environment; those that it has already keep their values.

    Args:
        path: the file.
        environment: usually `os.environ`.

    Raises:
        ConfigError: it cannot be read, or a line is invalid.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"--env-file {path}: {why}") from None
    for name, value in parse_env_file(text, str(path)).items():
        environment.setdefault(name, value)
