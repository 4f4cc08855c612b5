"""The operator's prompt templates: Jinja2 in an immutable sandbox, with a caller's data as values and never as a template.

A template is `<contexts>/<context>/prompts/<component>/<file>`. Each name is one segment by a grammar, and the file that it
leads to lies below the folder of contexts, links followed. What a caller sends decides how long loops are, so the steps, the CPU
time and the characters of one prompt are bounded.
"""

import contextvars
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from jinja2 import (
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    UndefinedError,
    nodes,
    pass_eval_context,
)
from jinja2.exceptions import SecurityError
from jinja2.filters import do_replace, sync_do_join
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hf_gateway.server import problems
from hf_gateway.server.problems import Problem
from hf_gateway.values.logs import logger

log = logger(__name__)

DEFAULT_FILE = "agent_response.md"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"
"""Grammar of the names of contexts and components."""
FILE_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.md"
"""Grammar of the names of templates."""
MAX_TEMPLATE_BYTES = 2**20
MAX_PROMPT_CHARS = 2**20
MAX_STEPS = 200_000
"""Maximum turns of all loops, and calls of macros, of one prompt."""
MAX_CPU_S = 5.0
"""Maximum CPU time of one prompt."""
MAX_OPERAND_DIGITS = 300
"""Maximum decimal digits of the result of `**`."""
MAX_TEMPLATES_COUNT = 256
"""How many compiled templates are kept."""
_SIZED_FILTERS = ("batch", "center", "format", "indent", "slice", "wordwrap")
"""Filters by which a single number in a caller's data makes a text of any size."""
_SIZED_METHODS = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "translate", "zfill"})
"""Methods of texts that do the same."""


class _LimitReached(Exception):
    """A prompt takes too much; says what of."""


@dataclass
class _Use:
    """What one prompt has taken so far."""

    steps: int = 0
    """Turns of loops and calls of macros."""
    chars: int = 0
    """Characters of its text."""
    began: float = field(default_factory=time.thread_time)
    """CPU time of its thread at the beginning, in seconds."""

    def step(self) -> None:
        """Count a step. Raises _LimitReached."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise _LimitReached(f"its loops take more than {MAX_STEPS:,} turns")
        self.check_time()

    def add(self, chars: int) -> None:
        """Count characters. Raises _LimitReached."""
        self.chars += chars
        if self.chars > MAX_PROMPT_CHARS:
            raise _LimitReached(f"it has more than {MAX_PROMPT_CHARS:,} characters")
        self.check_time()

    def check_time(self) -> None:
        """Raise _LimitReached if there was too much CPU time."""
        if time.thread_time() - self.began > MAX_CPU_S:
            raise _LimitReached(f"it takes more than {MAX_CPU_S:g} s to render")


def _check_replaced(text: Any, old: Any, new: Any, count: int | None = None) -> None:
    """Raise _LimitReached for a replacement of a short text by a long one in so many places that the result is far too large."""
    old, new = str(old), str(new)
    places = str(text).count(old)
    if (places if count is None or count < 0 else min(count, places)) * (len(new) - len(old)) > MAX_PROMPT_CHARS:
        raise _LimitReached(f"it replaces something by more than {MAX_PROMPT_CHARS:,} characters")


def _check_joined(separator: Any, values: Sequence[Any]) -> None:
    """Raise _LimitReached for values with separators that are far too large together."""
    if len(str(separator)) * len(values) > MAX_PROMPT_CHARS:
        raise _LimitReached(f"it joins something by more than {MAX_PROMPT_CHARS:,} characters")


@pass_eval_context
def _replace(within: EvalContext, text: Any, old: Any, new: Any, count: int | None = None) -> str:
    """Jinja2's filter, with a bound."""
    _check_replaced(text, old, new, count)
    return do_replace(within, text, old, new, count)


@pass_eval_context
def _join(within: EvalContext, values: Iterable[Any], separator: str = "", attribute: str | int | None = None) -> str:
    """Jinja2's filter, with a bound."""
    listed = list(values)
    _check_joined(separator, listed)
    return sync_do_join(within, listed, separator, attribute)


_use: contextvars.ContextVar[_Use] = contextvars.ContextVar("hf_gateway_prompt_use")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which loops and macros count their steps, also where they write nothing."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
        self.globals.pop("lipsum")
        for name in _SIZED_FILTERS:
            self.filters.pop(name)
        self.filters |= {"replace": _replace, "join": _join}

    @staticmethod
    def step() -> str:
        """Count a step."""
        _use.get().step()
        return ""

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        for node in source.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
            counted = nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None)
            node.body.insert(0, nodes.ExprStmt(counted, lineno=node.lineno))  # type: ignore[attr-defined]
        return super()._generate(source, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute a product or a power whose result has a bounded size, or a remainder."""
        if operator == "%" and isinstance(left, str):
            raise SecurityError("formats of texts are not available")
        if operator == "**":
            if abs(right) * len(str(abs(left))) > MAX_OPERAND_DIGITS:
                raise _LimitReached("it computes a power with too many digits")
        elif isinstance(left, int) and isinstance(right, int):
            if left.bit_length() + right.bit_length() > 4 * MAX_OPERAND_DIGITS:
                raise _LimitReached("it computes a product with too many digits")
        elif isinstance(left, int) != isinstance(right, int):
            count, repeated = (left, right) if isinstance(left, int) else (right, left)
            if not isinstance(repeated, float) and count * len(repeated) > MAX_PROMPT_CHARS:
                raise _LimitReached(f"it repeats something to more than {MAX_PROMPT_CHARS:,} characters")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls; of the methods of texts that are the same as filters, with their bounds."""
        owner, name = getattr(called, "__self__", None), getattr(called, "__name__", None)
        if isinstance(owner, str) and name == "replace":
            _check_replaced(owner, *args, **kwargs)
        elif isinstance(owner, str) and name == "join":
            args = tuple(map(list, args))
            _check_joined(owner, *args)
        return super().call(context, called, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may read an attribute."""
        if isinstance(obj, str) and attr in _SIZED_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:  # noqa: ARG002 - the sandbox's signature
        """Return None: formats are refused like the other methods that a number makes large."""
        return None


class PromptTemplates:
    """Templates compiled from files, each until its file changes. Safe for threads."""

    def __init__(self) -> None:
        """Begin without any."""
        self._environment = _Environment()
        self._kept: OrderedDict[Path, tuple[tuple[int, int], Template]] = OrderedDict()
        self._lock = Lock()

    def render(self, path: Path, values: Mapping[str, Any]) -> str:
        """Return the prompt that a template makes of values.

        Args:
            path: of the template.
            values: what the template calls by name.

        Raises:
            Problem: 400 if the values do not fit the template or make it too large, 500 if the template is invalid.
        """
        template = self._template(path)
        token = _use.set(_Use())
        try:
            return "".join(self._pieces(template, values))
        except UndefinedError as error:
            raise Problem(
                400, "invalid_request", f"the prompt template needs more data: {error.message}", param="data"
            ) from None
        except _LimitReached as limit:
            raise Problem(400, "prompt_too_large", f"the prompt is not rendered: {limit}", param="data") from None
        except (RecursionError, MemoryError, OverflowError) as error:
            raise Problem(
                400, "prompt_too_large", f"the prompt is not rendered: {type(error).__name__}", param="data"
            ) from None
        except SecurityError as error:
            raise _broken(path, f"it is refused by the sandbox: {error.message}") from None
        except TemplateError as error:
            raise _broken(path, str(error.message)) from None
        except Exception as error:  # noqa: BLE001 - filters raise errors of any class for values of another type
            log.warning("the prompt template %s failed with a caller's data: %s", path, type(error).__name__)
            raise Problem(
                400,
                "invalid_request",
                f"the prompt template does not fit the data: {type(error).__name__}",
                param="data",
            ) from None
        finally:
            _use.reset(token)

    @staticmethod
    def _pieces(template: Template, values: Mapping[str, Any]) -> Iterator[str]:
        use = _use.get()
        for piece in template.generate(values):
            use.add(len(piece))
            yield piece

    def _template(self, path: Path) -> Template:
        """Return a compiled template. Raises Problem 404 if it does not exist, 500 if it is invalid."""
        try:
            about = path.stat()
            stamp = (about.st_mtime_ns, about.st_size)
            with self._lock:
                if (kept := self._kept.get(path)) is not None and kept[0] == stamp:
                    self._kept.move_to_end(path)
                    return kept[1]
            if about.st_size > MAX_TEMPLATE_BYTES:
                raise _broken(path, f"it has more than {MAX_TEMPLATE_BYTES:,} bytes")
            source = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise problems.not_found("there is no such prompt template", "component") from None
        except (OSError, UnicodeDecodeError) as error:
            raise _broken(path, f"{type(error).__name__}: {error}") from None
        try:
            template = self._environment.from_string(source)
        except (TemplateSyntaxError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            raise _broken(path, f"line {line}: {error}" if line else type(error).__name__) from None
        with self._lock:
            self._kept[path] = (stamp, template)
            self._kept.move_to_end(path)
            while len(self._kept) > MAX_TEMPLATES_COUNT:
                self._kept.popitem(last=False)
        return template


def template_path(contexts: Path | None, context: str, component: str, file: str = DEFAULT_FILE) -> Path:
    """Return the path of a template.

    Args:
        contexts: the folder of all contexts; None for no contexts.
        context: a folder in it.
        component: a folder of the context's prompts.
        file: the name of the template.

    Raises:
        Problem: 400 for a name outside of the grammar, 404 if there is no such template.
    """
    for param, name, pattern in (
        ("context", context, NAME_PATTERN),
        ("component", component, NAME_PATTERN),
        ("prompt_file", file, FILE_PATTERN),
    ):
        if re.fullmatch(pattern, name) is None:
            raise Problem(400, "invalid_request", f"{param} is not a name of letters, digits, _ and -", param=param)
    if contexts is None:
        raise problems.not_found("this server has no prompt templates: [server] contexts names no folder", "context")
    folder = contexts.resolve()
    if not (folder / context).is_dir():
        raise problems.not_found(f"there is no context {context!r}", "context")
    path = (folder / context / "prompts" / component / file).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise problems.not_found(
            f"the context {context!r} has no template prompts/{component}/{file}",
            "component" if file == DEFAULT_FILE else "prompt_file",
        )
    return path


def _broken(path: Path, why: str) -> Problem:
    """Return the problem of a template that the operator has to correct; what is wrong is in the log alone."""
    log.error("the prompt template %s cannot be used: %s", path, why)
    return Problem(500, "template_invalid", "the prompt template cannot be used; the server's log says why")
