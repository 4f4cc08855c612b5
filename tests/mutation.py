"""A mutation pass: changes the rules one small thing at a time and looks whether a test notices.

`python -m tests.mutation` goes through all modules of `MODULES`, `python -m tests.mutation chain breaker` through these. The
tests are collected once; each mutant lives in a child that is forked from there, gets the changed code put into the live
functions, and runs the tests that execute the changed line, the quickest first, until one fails. What survives and is not in
`mutation_survivors.json`, with the reason why no test can or should tell, is printed.
"""

import argparse
import ast
import contextlib
import copy
import gc
import json
import os
import select
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import coverage
import pytest

HERE = Path(__file__).parent
SURVIVORS = HERE / "mutation_survivors.json"
CORE = HERE.parent / "shared" / "hf_gateway"

MODULES: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "chain": (
        ["chain.fallback"],
        [
            "chain",
            "time_limits",
            "failure_table",
            "embedding_failures",
            "chat_failures",
            "breaker_and_deadline",
            "chat_streams",
            "errors",
        ],
    ),
    "breaker": (["chain.circuit_breaker"], ["breaker", "breaker_and_deadline"]),
    "pace": (["chain.timeouts"], ["time_limits", "chain"]),
    "guard": (["spaces.guard"], ["guard", "served_spaces", "mixed_servers", "space_copies", "index_lock"]),
    "classify": (
        ["wire.classify", "wire.failure_table"],
        ["classify", "errors", "failure_table", "embedding_failures", "chat_failures"],
    ),
    "credentials": (["keys.credentials", "keys.policy"], ["credentials", "key_policy", "keyring"]),
    "transport": (
        ["http.transport", "http.exchange"],
        ["exchange", "transport_life", "transport_pools", "transport_streams", "transport"],
    ),
    "downloads": (["hub.transfer"], ["hub_transfer", "hub_download"]),
    "money": (["ledger.cost", "ledger.prices", "tasks.chat.record"], ["costs", "prices"]),
    "budgets": (
        ["ledger.budgets", "ledger.budget_pool", "ledger.budget_watch"],
        ["budget_pool", "budget_rows", "budget_watch", "budgets"],
    ),
}
"""By its name here: the core's modules, and the test files that hold them."""

MIN_TIMEOUT_S = 10.0
"""Seconds that a mutant has at the least: one that hangs counts as noticed."""
TIMEOUT_FACTOR = 5.0
"""Times the tests' own time that a mutant has."""
WANTED_KILLED = 0.9
NOT_APPLIED = "not applied"

_SWAPPED: Mapping[type[ast.cmpop], Sequence[type[ast.cmpop]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_REPLACED: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """One small change."""

    module: str
    """Dotted name of the module."""
    number: int
    """Which of the module's changes it is."""
    line: int
    where: str
    """Qualified name of the function or the class, "" for the module itself."""
    change: str
    """What was there and what stands there now."""
    source: str
    """The line as it is."""

    @property
    def key(self) -> str:
        """How the file of survivors calls it, and no other one; free of line numbers, which change."""
        return f"{self.module}:{self.where}: {self.source}: {self.change}"


class _Sites(ast.NodeTransformer):
    """Visits a module and makes the change with a number; with none, notes them all."""

    def __init__(self, module: str, lines: Sequence[str], wanted: int | None = None) -> None:
        self.module, self.lines, self.wanted = module, lines, wanted
        self.found: list[Mutant] = []
        self._names: list[str] = []
        self._times: Counter[str] = Counter()

    def _change(self, node: ast.AST, change: str, make: Callable[[], Any]) -> Any:
        """Note a change; returns the changed node if it is the wanted one, else None."""
        number = len(self.found)
        line = getattr(node, "lineno", 0)
        source = self.lines[line - 1].strip() if line else ""
        made = Mutant(self.module, number, line, ".".join(self._names), change, source)
        self._times[made.key] += 1
        if (times := self._times[made.key]) > 1:
            made = replace(made, change=f"{change} ({times})")
        self.found.append(made)
        return make() if number == self.wanted else None

    def _scope(self, node: Any) -> Any:
        # Annotations and docstrings run nowhere; the defaults of a dataclass stand in a method that was made from them.
        self._names.append(node.name)
        for part in node.body:
            if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
                continue
            if isinstance(node, ast.ClassDef) and node.decorator_list and not isinstance(part, ast.FunctionDef):
                continue
            place = node.body.index(part)
            node.body[place] = self.visit(part)
        self._names.pop()
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _scope  # noqa: N815 - as ast calls them

    def visit_Compare(self, node: ast.Compare) -> Any:
        for place, op in enumerate(node.ops):
            for other in _SWAPPED[type(op)]:
                ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                change = f"{type(op).__name__} -> {other.__name__}"
                if changed := self._change(node, change, lambda ops=ops: ast.Compare(node.left, ops, node.comparators)):
                    return ast.copy_location(changed, node)
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        if changed := self._change(
            node, f"{type(node.op).__name__} -> {other.__name__}", lambda: ast.BoolOp(other(), node.values)
        ):
            return ast.copy_location(changed, node)
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        if isinstance(node.op, ast.Not) and (changed := self._change(node, "without the not", lambda: node.operand)):
            return changed
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        other = _REPLACED.get(type(node.op))
        text = isinstance(node.left, ast.JoinedStr | ast.Constant) and isinstance(getattr(node.left, "value", ""), str)
        if (
            other is not None
            and not text
            and (
                changed := self._change(
                    node,
                    f"{type(node.op).__name__} -> {other.__name__}",
                    lambda: ast.BinOp(node.left, other(), node.right),
                )
            )
        ):
            return ast.copy_location(changed, node)
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, bool):
            changed = self._change(node, f"{node.value} -> {not node.value}", lambda: ast.Constant(not node.value))
        elif isinstance(node.value, int | float):
            changed = self._change(node, f"{node.value} -> {node.value + 1}", lambda: ast.Constant(node.value + 1))
        else:
            return node
        return node if changed is None else ast.copy_location(changed, node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> Any:
        return node  # words for people, with what is shown in them

    def _negated(self, node: Any) -> Any:
        if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
            changed = self._change(node.test, "negated", lambda: ast.UnaryOp(ast.Not(), node.test))
            if changed is not None:
                node.test = ast.copy_location(changed, node.test)
                return node
        return self.generic_visit(node)

    visit_If = visit_IfExp = visit_While = _negated  # noqa: N815 - as ast calls them

    def visit_Return(self, node: ast.Return) -> Any:
        nothing = node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None)
        if not nothing and (changed := self._change(node, "returns None", lambda: ast.Return(ast.Constant(None)))):
            return ast.copy_location(changed, node)
        return self.generic_visit(node)

    def _removed(self, node: Any) -> Any:
        if (changed := self._change(node, "removed", ast.Pass)) is not None:
            return ast.copy_location(changed, node)
        return self.generic_visit(node)

    visit_Raise = visit_Continue = visit_Break = visit_AugAssign = _removed  # noqa: N815 - as ast calls them

    def visit_Expr(self, node: ast.Expr) -> Any:
        call = node.value
        if isinstance(call, ast.Constant):
            return node
        told = isinstance(call, ast.Call) and ast.unparse(call.func).startswith(("log.", "notice_once"))
        return node if told else self._removed(node)

    def visit_Assign(self, node: ast.Assign) -> Any:
        if isinstance(node.targets[0], ast.Attribute | ast.Subscript):
            return self._removed(node)
        return self._table(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is not None:
            if isinstance(node.target, ast.Attribute):
                return self._removed(node)
            return self._table(node)
        return node

    def _table(self, node: Any) -> Any:
        """A row less in a table of a module."""
        value = node.value
        rows = (
            value.elts if isinstance(value, ast.Tuple | ast.List) else value.keys if isinstance(value, ast.Dict) else []
        )
        if not self._names and len(rows) > 2:
            for place, row in enumerate(rows):
                if row is None:
                    continue

                def without(place: int = place) -> Any:
                    fewer = copy.copy(value)
                    for part in ("elts", "keys", "values"):
                        if isinstance(items := getattr(value, part, None), list):
                            setattr(fewer, part, [*items[:place], *items[place + 1 :]])
                    return fewer

                changed = self._change(row, f"row removed: {ast.unparse(row)[:60]}", without)
                if changed is not None:
                    node.value = changed
                    return node
        if value is not None:
            node.value = self.visit(value)
        return node


def mutants_of(module: str) -> list[Mutant]:
    """Return all changes of a module."""
    source = _source(module)
    sites = _Sites(module, source.splitlines())
    sites.visit(ast.parse(source))
    return sites.found


def _path(module: str) -> Path:
    return CORE.parent / (module.replace(".", "/") + ".py")


def test_file(name: str) -> Path:
    """Return where a test file is, whichever folder it lies in."""
    return next(HERE.rglob(f"test_{name}.py"))


@cache
def _source(module: str) -> str:
    """Return the source as it was at the first look: it may be edited while a pass goes on."""
    return _path(module).read_text()


class _NotApplied(Exception):
    """There is no live function for a change: it would be none, and counts as not noticed."""


def _apply(mutant: Mutant, functions: Mapping[tuple[str, int], list[types.FunctionType]]) -> None:
    """Put the change into what is loaded. Raises _NotApplied where nothing there takes it."""
    path = _path(mutant.module)
    source = _source(mutant.module)
    tree = ast.parse(source)
    tree = ast.fix_missing_locations(_Sites(mutant.module, source.splitlines(), mutant.number).visit(tree))
    code = compile(tree, str(path), "exec")
    live = sys.modules[mutant.module]
    put = False
    for made in _codes(code):
        for function in functions.get((made.co_qualname, made.co_firstlineno), ()):
            if made != function.__code__:
                function.__code__ = made
                put = True
    if put:
        return
    namespace: dict[str, Any] = {"__name__": mutant.module, "__file__": str(path)}
    exec(code, namespace)
    scope, there = namespace, live
    for name in filter(None, mutant.where.split(".")):
        if not isinstance(scope.get(name), type):
            raise _NotApplied
        scope, there = vars(scope[name]), getattr(there, name)
    # A value of a module has been imported by its name elsewhere.
    places = [module for name, module in sys.modules.items() if name.startswith("hf_gateway")]
    for name, value in scope.items():
        if not name.startswith("__") and not isinstance(value, types.FunctionType | types.ModuleType | type):
            before = vars(there).get(name, value)
            for place in [there, *(each for each in places if name in vars(each) and vars(each)[name] is before)]:
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(place, name, value)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield each
            yield from _codes(each)


def _functions(modules: Sequence[str]) -> dict[tuple[str, int], list[types.FunctionType]]:
    """Find the live functions of these modules, wherever decorators have put them."""
    files = {sys.modules[module].__file__ for module in modules}
    found: dict[tuple[str, int], list[types.FunctionType]] = {}
    for each in gc.get_objects():
        if isinstance(each, types.FunctionType) and each.__code__.co_filename in files:
            found.setdefault((each.__code__.co_qualname, each.__code__.co_firstlineno), []).append(each)
    return found


@dataclass
class Outcome:
    """How a mutant fared. killed: by which test, "time" for one that hung; None if it survived."""

    mutant: Mutant
    killed: str | None
    tests: int


class _Plugin:
    """Runs, in the place of pytest's own loop, the tests once as they are and then for each mutant."""

    def __init__(self, modules: Sequence[str], processes: int) -> None:
        self._modules = modules
        self._processes = processes
        self.outcomes: list[Outcome] = []
        self.failed: list[str] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for module in self._modules:
            import_module(module)
        functions = _functions(self._modules)
        mutants = [mutant for module in self._modules for mutant in mutants_of(module)]
        seen = self._baseline(session)
        if self.failed:
            return True
        durations = {name: seconds for name, seconds, _ in seen}
        lines: dict[tuple[str, int], list[str]] = {}
        for name, _, executed in seen:
            for module, numbers in executed.items():
                for number in numbers:
                    lines.setdefault((module, number), []).append(name)
        items = {item.nodeid: item for item in session.items}

        def prepared(mutant: Mutant) -> tuple[list[str], _Child]:
            names = lines.get((mutant.module, mutant.line), [])
            # What runs while a module is imported is executed by no test, or by all.
            chosen = sorted(names or (durations if not _in_function(mutant) else []), key=durations.__getitem__)
            limit = max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * sum(durations[name] for name in chosen))
            work = partial(_run, [items[name] for name in chosen], partial(_apply, mutant, functions))
            return chosen, _Child(work, limit)

        def _in_function(mutant: Mutant) -> bool:
            return any(mutant.where.startswith(name) for name, _ in functions) and mutant.where != ""

        for place, (mutant, chosen, result) in enumerate(self._played(mutants, prepared), 1):
            applied = result != NOT_APPLIED
            outcome = Outcome(
                mutant, "time" if result is None else (result or None) if applied else None, len(chosen) * applied
            )
            self.outcomes.append(outcome)
            if outcome.killed is None:
                _say(f"{place}/{len(mutants)} survived: {mutant.module}:{mutant.line} {mutant.change}: {mutant.source} "
                      f"({outcome.tests} tests)")  # fmt: skip
        return True

    def _played(
        self, mutants: Sequence[Mutant], prepared: Callable[[Mutant], tuple[list[str], "_Child"]]
    ) -> Iterator[tuple[Mutant, list[str], str | None]]:
        """Play mutants, several at a time. All children are forked by this thread: another one's locks would be held in them."""
        waiting, running = list(reversed(mutants)), []
        while waiting or running:
            while waiting and len(running) < self._processes:
                mutant = waiting.pop()
                running.append((mutant, *prepared(mutant)))
            ready = select.select([child.pipe for *_, child in running], [], [], 0.2)[0]
            for entry in list(running):
                mutant, chosen, child = entry
                if child.pipe in ready:
                    child.read()
                if child.done or child.late:
                    running.remove(entry)
                    yield mutant, chosen, child.end()

    def _baseline(self, session: pytest.Session) -> list[tuple[str, float, dict[str, list[int]]]]:
        """Run the tests as they are; returns the time of each, and the lines that it executed."""

        def run() -> str:
            files = {str(_path(module)): module for module in self._modules}
            watch = coverage.Coverage(data_file=None, include=list(files), config_file=False)
            watch.start()
            seen: list[tuple[str, float, dict[str, list[int]]]] = []
            for item in session.items:
                watch.switch_context(item.nodeid)
                started = time.perf_counter()
                failed = _run([item], None)
                seconds = time.perf_counter() - started
                if failed:
                    return json.dumps({"failed": failed})
                seen.append((item.nodeid, seconds, {}))
            watch.stop()
            data = watch.get_data()
            for file in data.measured_files():
                for line, names in data.contexts_by_lineno(file).items():
                    for name in names:
                        entry = next((each for each in seen if each[0] == name), None)
                        if entry is not None:
                            entry[2].setdefault(files[file], []).append(line)
            return json.dumps({"seen": seen})

        child = _Child(run, 3600)
        while not child.done:
            child.read()
        result = json.loads(child.end() or "{}")
        if "seen" not in result:
            self.failed.append(result.get("failed", "the run itself"))
            return []
        return [(name, seconds, executed) for name, seconds, executed in result["seen"]]


def _run(items: Sequence[pytest.Item], change: Callable[[], None] | None) -> str:
    """Run tests until one fails; returns its name, or "" for none."""
    if change is not None:
        try:
            change()
        except _NotApplied:
            return NOT_APPLIED
    failed: list[str] = []

    class Reports:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.append(report.nodeid)

    for place, item in enumerate(items):
        manager = item.config.pluginmanager
        reports = Reports()
        manager.register(reports)
        try:
            following = items[place + 1] if place + 1 < len(items) else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        finally:
            manager.unregister(reports)
        if failed:
            return failed[0]
    return ""


class _Child:
    """A forked process that does some work in silence; `end` gives what the work returned."""

    def __init__(self, work: Callable[[], str], limit_s: float) -> None:
        reading, writing = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            code = 1
            try:
                os.setsid()
                os.close(reading)
                quiet = os.open(os.devnull, os.O_WRONLY)
                os.dup2(quiet, 1)
                os.dup2(quiet, 2)
                said = b"=" + work().encode()
                while said:
                    said = said[os.write(writing, said) :]
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        self.pipe = os.fdopen(reading, "rb", buffering=0)
        self._ends = time.monotonic() + limit_s
        self._said = bytearray()
        self.done = False

    @property
    def late(self) -> bool:
        """Whether its time is up."""
        return time.monotonic() >= self._ends

    def read(self) -> None:
        """Take what it says; waits for it."""
        part = self.pipe.read(1 << 16)
        self._said += part
        self.done = not part

    def end(self) -> str | None:
        """Return what it gave; None when it took too long, "?" when it died. Ends whatever it started."""
        self.pipe.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        return (self._said.decode()[1:] if self._said else "?") if self.done else None


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _stamps() -> dict[str, int]:
    """Return when each file was last changed that a test may still import: code of two versions fails for no mutant's sake."""
    files = (path for folder in (CORE, HERE) for path in folder.rglob("*.py"))
    return {str(path.relative_to(CORE.parents[1])): path.stat().st_mtime_ns for path in files}


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the mutants; 0 when enough were noticed in each module and every survivor is explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help=", ".join(MODULES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the outcomes")
    chosen = parser.parse_args(arguments)
    explained = json.loads(SURVIVORS.read_text()) if SURVIVORS.exists() else {}
    good = True
    rows = []
    for name in chosen.modules or MODULES:
        modules, tests = MODULES[name]
        plugin = _Plugin([f"hf_gateway.{module}" for module in modules], chosen.processes)
        started, stamps = time.perf_counter(), _stamps()
        files = [str(test_file(test)) for test in tests]
        pytest.main(
            ["-o", "addopts=", "-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:xdist", *files],
            plugins=[plugin],
        )
        if plugin.failed:
            _say(f"{name}: a test fails without any change: {plugin.failed[0]}")
            return 1
        if changed := sorted(path for path, _ in stamps.items() ^ _stamps().items()):
            _say(f"{name}: {changed[0]} was changed meanwhile; play it again where the files stay as they are")
            return 1
        survived = [each for each in plugin.outcomes if each.killed is None]
        count = len(plugin.outcomes)
        if not count:
            _say(f"{name}: no mutant was played")
            return 1
        killed = (count - len(survived)) / count
        unexplained = [each.mutant for each in survived if each.mutant.key not in explained]
        rows.append(f"{name}: {count} mutants, {killed:.1%} noticed, {len(survived)} survived, {len(unexplained)} of them "
                    f"without a reason, {time.perf_counter() - started:.0f} s")  # fmt: skip
        _say(rows[-1])
        for mutant in unexplained:
            _say(f"  {mutant.line}: {mutant.key}")
        good = good and killed >= WANTED_KILLED and not unexplained
        if chosen.json:
            with chosen.json.open("a") as file:
                file.writelines(json.dumps(asdict(each)) + "\n" for each in plugin.outcomes)
    _say("\n".join(rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
