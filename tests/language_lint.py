"""Checks the words of the code: names, docstrings, comments, and the strings that users see.

`python -m tests.language_lint [PATHS]` prints one line for each problem and exits with 1 if there are any; `make lint` runs it.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shared", "langchain_hf_gateway", "llamaindex_hf_gateway")

BANNED_PHRASES = {
    r"nobody|no one knows": "say what is missing: 'unknown', 'the server sends none', 'no caller'",
    r"whoever|who ever": "name the actor: 'the caller', 'the thread that'",
    r"somebody|anybody|everybody|someone|anyone": "name the actor: 'another process', 'a caller', 'a user'",
    r"(?:that|which|it|what|this) is none": "say what is wrong: 'invalid', 'not a model'",
    r"(?:there|where) (?:is|are|was|were) none": "'is missing', 'does not exist', 'empty'",
    r"(?:that|which|it|what|this) (?:is|was) no(?! (?:longer|more|other)\b)": "'is not a', 'invalid': 'invalid JSON'",
    r"(?:serves|speaks|knows|takes|gives|says|asks) (?:no|nothing)": "'does not support', 'does not accept', 'returns no'",
    r"(?:is|are|was|were|be) told": "name the call: 'is called with', 'is notified', 'receives'",
    r"anew|thereof|whence|hence|learnt|wherewith": "a common word: 'again', 'of it', 'learned'",
}
"""Phrase → what to write instead; in docstrings, comments and strings of more than one word."""

BANNED_OPENINGS = {
    "Say": "'Return whether', 'Return', 'Print', 'Log'",
    "Tell": "'Return', 'Notify', 'Print'",
    "Give": "'Return', 'Yield'",
    "Know": "'Return', 'Check'",
}
"""First word of a docstring → what to write instead."""


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


PARTICIPLES = _set_of(
    "answered asked begun brought came carried charged chatted chosen counted drawn found given gone guarded heard held kept "
    "known left made met named needed noted offered priced promised put_back refused said seen sent served settled shown "
    "taken told tried understood unanswered used wanted watched went written"
)
"""Not a name of a function alone: what it returns or does is missing. `sorted`, `closed` and the like are Python's own."""

METAPHORS = _set_of(
    "chatter cutter cutting flight front gathering house journal leaving link pace portal standing surroundings tried "
    "windows"
)
"""Not a word of a class's or module's name: a reader has to be told what it stands for."""

UNITS = _set_of(
    "S MS NS MINUTES HOURS DAYS BYTES KIB MIB GIB BITS CHARS TOKENS TEXTS WORDS LINES ROWS COLUMNS DIGITS ITEMS KEYS NAMES FILES "
    "FOLDERS PIECES REQUESTS ATTEMPTS RETRIES REDIRECTS ROUNDS TURNS CALLS THREADS PROCESSES CONNECTIONS STREAMS SPACES ENTRIES "
    "MODELS TARGETS LAYERS PARAMETERS DIMENSIONS VECTORS PAIRS IMAGES DOCUMENTS PAGES USD PERCENT HZ DECIMALS LEVELS DEPTH "
    "VERSION RATIO FACTOR COSINE DECAY SHARE PROBABILITY PORT STATUS CODE EXIT BASE EXPONENT ORDER INDEX SEED EPSILON NUMBER "
    "EVENTS TOOLS ARGUMENTS FIELDS PARTS CANARIES FAILURES PROBES BUCKETS SIZES LABELS ERRORS COUNT COUNTS WORKERS RUNS "
    "MESSAGES CHOICES CHUNKS BATCHES LEASES JOBS TASKS SAMPLES MARKS PATHS REPOSITORIES RESULTS SLOTS VALUES INTEGER DIM "
    "DIMENSION ID NORM TOLERANCE TRIES REFUSALS PASSAGES BIT OPSET DIVISOR IDENTITIES IDS NODES CHARACTERS NUMBERS PIXELS STEPS"
)
"""Words that a numeric constant's name has one of: a unit, what is counted, or a number without a unit."""


@dataclass(frozen=True)
class Problem:
    """One place that breaks a rule."""

    line: int
    """Counted from 1."""
    rule: str
    """word, opening, participle, metaphor, unit, field or args."""
    text: str
    """What is wrong, and what to write instead."""

    def __str__(self) -> str:
        return f"{self.line}: {self.rule}: {self.text}"


def problems(source: str, module: str = "") -> list[Problem]:
    """Return what is wrong with the words of a module, by line.

    Args:
        source: Python code.
        module: the file's name without its suffix.
    """
    tree = ast.parse(source)
    found = [
        *_phrases(source),
        *_names_and_openings(tree),
        *_constants_without_unit(tree),
        *_fields_without_docstring(tree),
        *_functions_without_args(tree),
    ]
    if word := METAPHORS & set(module.split("_")):
        found.append(Problem(1, "metaphor", f"the module {module} is named after {', '.join(word)}"))
    return sorted(found, key=lambda problem: problem.line)


def _phrases(source: str) -> Iterator[Problem]:
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in kinds or " " not in token.string:
            continue
        words = re.sub(r"[\"'\s#]+", " ", token.string)
        for phrase, instead in BANNED_PHRASES.items():
            for match in re.finditer(rf"\b(?:{phrase})\b", words, re.IGNORECASE):
                yield Problem(token.start[0], "word", f"{match[0]!r}; write {instead}")


def _names_and_openings(tree: ast.Module) -> Iterator[Problem]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            continue
        first = (ast.get_docstring(node) or "").partition(" ")[0].strip(":,.")
        if first in BANNED_OPENINGS:
            yield Problem(getattr(node, "lineno", 1), "opening", f"{first!r}; write {BANNED_OPENINGS[first]}")
        if isinstance(node, ast.ClassDef):
            words = {word.lower() for word in re.findall(r"[A-Z][a-z]+", node.name)}
            if word := METAPHORS & words:
                yield Problem(node.lineno, "metaphor", f"the class {node.name} is named after {', '.join(word)}")
        elif not isinstance(node, ast.Module) and node.name.strip("_") in PARTICIPLES and not _is_flag(node):
            yield Problem(node.lineno, "participle", f"{node.name} does not name what it returns or does")


def _is_flag(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is a property that is true or false, as `closed` is of files."""
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    return bool(decorators & {"property", "cached_property"}) and ast.unparse(node.returns or node) == "bool"


def _constants_without_unit(tree: ast.Module) -> Iterator[Problem]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if not isinstance(target, ast.Name) or not target.id.isupper() or not _is_number(value):
            continue
        if not UNITS & set(target.id.split("_")):
            yield Problem(node.lineno, "unit", f"{target.id} names neither its unit nor what it counts")


def _is_number(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):
        return _is_number(value.left) and _is_number(value.right)
    if isinstance(value, ast.UnaryOp):
        return _is_number(value.operand)
    return isinstance(value, ast.Constant) and type(value.value) in {int, float}


def _fields_without_docstring(tree: ast.Module) -> Iterator[Problem]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if field.target.id.startswith("_") or "ClassVar" in ast.unparse(field.annotation):
                continue
            if not (
                isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                yield Problem(field.lineno, "field", f"{node.name}.{field.target.id} has no docstring under it")


def _functions_without_args(tree: ast.Module) -> Iterator[Problem]:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for owner in (tree, *classes):
        for node in owner.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
            if decorators & {"override", "overload"}:
                continue
            args = node.args
            names = [*args.posonlyargs, *args.args, *args.kwonlyargs]
            if owner is not tree and "staticmethod" not in decorators:
                names = names[1:]
            text = ast.get_docstring(node) or ""
            # The parameters of the two forms are the same, and their meaning stands once.
            twin = re.match(r"Async form of `(\w+)`", text)
            if twin and any(isinstance(each, ast.FunctionDef) and each.name == twin[1] for each in owner.body):
                continue
            if len(names) > 1 and "Args:" not in text:
                yield Problem(node.lineno, "args", f"{node.name} has {len(names)} parameters and no Args: section")


def files(paths: Iterable[str]) -> Iterator[Path]:
    """Yield the modules under paths."""
    for path in paths:
        place = ROOT / path
        yield from [place] if place.is_file() else sorted(place.rglob("*.py"))


def main(paths: list[str]) -> int:
    """Print the problems in the modules under paths, by default in all packages; returns 1 if there are any."""
    number = 0
    for path in files(paths or PACKAGES):
        for problem in problems(path.read_text(encoding="utf-8"), path.stem):
            number += 1
            sys.stdout.write(f"{path.relative_to(ROOT)}:{problem}\n")
    return 1 if number else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
