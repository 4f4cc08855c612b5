"""A task is a room: nothing outside it asks which task a chain is for, and another package can add one."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project.test_floors import PACKAGES, ROOT

NAMES = {"embedding", "chat", "rerank", "sparse", "classification"}
"""Without "image", which is also a unit of prices and a kind of content; comparing a `task` is found anyway."""
TAGS = {
    "feature-extraction",
    "sentence-similarity",
    "text-generation",
    "image-text-to-text",
    "conversational",
    "text-ranking",
    "text-to-image",
    "text-classification",
    "zero-shot-classification",
    "image-classification",
    "sparse-encoder",
    "splade",
}
"""The Hub's own words for them."""
ONE_TASKS_CLASS = re.compile(
    r"(Embed|Embedding|Chat|Rerank|Sparse|Image|Classify)(Options|Settings|Request|Result|Answer|Candidate|Gateway|Service|Ability)"
)
ROOMS = {
    "tasks/embedding": "Embed",
    "tasks/chat": "Chat",
    "tasks/rerank": "Rerank",
    "tasks/sparse": "Sparse",
    "tasks/image": "Image",
    "tasks/classification": "Classify",
}
"""Where a task may tell its own classes apart from what else its callers give, and how those begin."""


def is_task(node: ast.expr) -> bool:
    """Return whether an expression is a task, by its name, or a name of one."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(map(is_task, node.elts))
    if isinstance(node, ast.Constant):
        return node.value in NAMES | TAGS if isinstance(node.value, str) else False
    return (node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)) == "task"


def class_names(node: ast.expr) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name | ast.Attribute):
            yield each.id if isinstance(each, ast.Name) else each.attr


def patterns(node: ast.pattern) -> Iterator[ast.expr]:
    for each in ast.walk(node):
        if isinstance(each, ast.MatchValue):
            yield each.value
        elif isinstance(each, ast.MatchClass):
            yield each.cls


def is_table_by_task(node: ast.Dict) -> bool:
    return bool(node.keys) and all(isinstance(key, ast.Constant) and key.value in NAMES for key in node.keys)


def branches(tree: ast.AST, room: str = "") -> Iterator[tuple[int, str]]:
    """Find what asks for a task: comparisons, isinstance over one task's classes, tables by the names of tasks."""
    own = ROOMS.get(room)
    tables = {
        id(node.value)
        for cls in ast.walk(tree)
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and "abilities" in class_names(node.targets[0] if isinstance(node, ast.Assign) else node.target)
    }
    """A kind's abilities: that table is the registry of (kind, task)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            operators = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
            if any(isinstance(each, operators) for each in node.ops) and any(
                map(is_task, [node.left, *node.comparators])
            ):
                yield node.lineno, f"compares a task: {ast.unparse(node)}"
        elif isinstance(node, ast.Match):
            cases = [each for case in node.cases for each in patterns(case.pattern)]
            if is_task(node.subject) or any(map(is_task, cases)):
                yield node.lineno, f"matches a task: {ast.unparse(node.subject)}"
            elif any(ONE_TASKS_CLASS.fullmatch(name) for case in cases for name in class_names(case)):
                yield node.lineno, f"matches a task's class: {ast.unparse(node.subject)}"
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            for name in class_names(node.args[1]):
                if ONE_TASKS_CLASS.fullmatch(name) and not (own and name.startswith(own)):
                    yield node.lineno, f"asks for a task's class: {ast.unparse(node)}"
        elif isinstance(node, ast.Dict) and id(node) not in tables and is_table_by_task(node):
            yield node.lineno, f"has a table by tasks: {ast.unparse(node)}"


def found_in(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        inner = path.relative_to(folder).as_posix()
        room = str(Path(inner).parent)
        for line, what in branches(ast.parse(path.read_text(encoding="utf-8")), room):
            yield f"{path.relative_to(ROOT)}:{line} {what}"


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_asks_which_task_a_chain_is_for(package: str) -> None:
    assert list(found_in(PACKAGES[package])) == []


@pytest.mark.parametrize(
    "planted",
    [
        "if self.options.task == 'embedding': pass",
        "if task != other: pass",
        "if gateway.task in ('chat', 'rerank'): pass",
        "if kind == 'chat': pass",
        "if metadata.pipeline_tag in ('text-generation', 'text2text-generation'): pass",
        "match settings.task:\n    case 'rerank': pass",
        "match name:\n    case 'embedding': pass",
        "match request:\n    case ChatRequest(): pass",
        "isinstance(settings, ChatSettings)",
        "isinstance(result, EmbedResult | str)",
        "issubclass(kind, (str, chat.ChatGateway))",
        "[each for each in candidates if isinstance(each, EmbeddingCandidate)]",
        "prefix = {'embedding': 'EMBED', 'chat': 'CHAT'}[settings.task]",
        "TASKS = {'embedding': 'feature-extraction'}",
    ],
)
def test_a_planted_question_is_found(planted: str) -> None:
    assert len(list(branches(ast.parse(planted)))) == 1


@pytest.mark.parametrize(
    "harmless",
    [
        "{'index': 0, 'embedding': [0.0]}",
        "class TeiServer(Server):\n    abilities = {'embedding': TeiEmbedding, 'chat': TeiChat}",
        "find_task(settings.task).gateway_class",
        "isinstance(settings, find_task(task).settings)",
    ],
)
def test_what_looks_a_task_up_is_not(harmless: str) -> None:
    assert list(branches(ast.parse(harmless))) == []


def test_a_room_may_tell_its_own_classes_apart_and_no_others() -> None:
    tree = ast.parse("isinstance(messages, ChatRequest)")
    assert list(branches(tree, "tasks/chat")) == []
    assert len(list(branches(tree, "tasks/embedding"))) == 1


TOY = """
[hf_gateway.tasks]
count = tests.support.toy_task:TASK
[hf_gateway.backends]
counter = tests.support.toy_task:CountServer
"""


def with_the_toy_task(tmp_path: Path, code: str) -> Any:
    """Run code in a process in which a package with a third task is installed; return what it prints as JSON."""
    described = tmp_path / "toy_task-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-task\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(TOY)
    paths = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", "import json\n" + textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": paths, "HF_GATEWAY_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_package_adds_a_task_that_goes_through_the_chain(tmp_path: Path) -> None:
    found = with_the_toy_task(
        tmp_path,
        """
        import pickle
        from hf_gateway import Gateway, errors
        from tests.support.toy_task import CountServers

        targets = ["counter:http://one", "counter:http://two"]
        gateway = Gateway("toy/counter", targets, task="count", lower=True, transport=CountServers("two"), max_retries=0)
        heard = []
        gateway.observe(heard.append)
        with gateway:
            result = gateway.count(["a text", "three more words"])
            status = [(each.target, each.breaker, each.ready) for each in gateway.status()]
            checks = [each.answers for each in gateway.check()]
        try:
            gateway.embed(["a text"])
        except errors.ConfigError as error:
            refused = str(error)
        try:
            Gateway(targets=["tei:http://one"], task="count")
        except errors.ConfigError as error:
            unable = str(error)
        copied = pickle.loads(pickle.dumps(gateway))
        print(json.dumps([
            result.counts, result.served_by, [each.outcome for each in result.attempts], len(heard), status, checks,
            [each.isidentifier() for each in (type(gateway).__name__, type(copied).__name__)], copied.settings.lower,
            str(gateway), refused, unable,
        ]))
        """,
    )
    counts, served_by, outcomes, heard, status, checks, _, lower, shown, refused, unable = found
    assert (counts, served_by, outcomes, heard) == ([2, 3], "counter:http://two", ["failed", "served"], 1)
    assert status == [["counter:http://one", "closed", True], ["counter:http://two", "closed", True]]
    assert checks == [False, True]
    assert lower is True
    assert shown == "Gateway('toy/counter', targets=['counter:http://one', 'counter:http://two'])"
    assert refused == "this gateway was built for counts of words; for embeddings leave task='count' out"
    assert "'tei:http://one'" in unable


def test_a_call_of_a_packages_task_has_a_row_in_the_ledger_and_a_span(tmp_path: Path) -> None:
    found = with_the_toy_task(
        tmp_path,
        """
        import sqlite3
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from hf_gateway import Gateway, ledger, telemetry
        from tests.support.toy_task import CountServers

        exporter, tracers = InMemorySpanExporter(), TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        telemetry.enable_otel(tracers, MeterProvider())
        book = ledger.enable("sqlite:///ledger.db")
        targets = ["counter:http://one", "counter:http://two"]
        with Gateway("toy/counter", targets, task="count", transport=CountServers("two"), max_retries=0) as gateway:
            gateway.count(["a text", "three more words"])
        assert book.flush()
        rows = sqlite3.connect("ledger.db")
        rows.row_factory = sqlite3.Row
        found = [dict(each) for each in rows.execute("select * from llm_observations order by id")]
        spans = {span.name: dict(span.attributes) for span in exporter.get_finished_spans()}
        print(json.dumps([found, spans], default=str))
        """,
    )
    (request, *attempts), spans = found
    expected = {"kind": "request", "task": "count", "texts": 2, "status": "ok", "fallback": 1, "input_tokens": 5}
    assert expected.items() <= request.items()
    assert [(each["target"], each["status"]) for each in attempts] == [
        ("counter:http://one", "failed"),
        ("counter:http://two", "ok"),
    ]
    assert {"toy.words": 5, "gen_ai.operation.name": "count"}.items() <= spans["huggingface.generate"].items()
