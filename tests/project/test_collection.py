"""Collecting the tests is for a developer's every run: it imports none of the heavy libraries that the tests are about."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import late

ROOT = Path(__file__).resolve().parents[2]
HEAVY = [
    "aiohttp",
    "alembic",
    "benchmarks",
    "huggingface_hub",
    "jsonschema",
    "keyring",
    "langchain",
    "langchain_classic",
    "langchain_core",
    "langchain_tests",
    "langgraph",
    "langsmith",
    "llama_index",
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "opentelemetry",
    "peft",
    "prometheus_client",
    "psycopg",
    "pypdf",
    "sentence_transformers",
    "sqlalchemy",
    "tokenizers",
    "torch",
    "transformers",
    "vcr",
]
SUITES = ("tests/langchain/test_langchain_standard.py", "tests/langchain/test_chat_langchain_standard.py")
"""LangChain's own suites: whoever subclasses them has imported LangChain."""

COLLECT = f"""
import sys
import pytest

status = pytest.main(["--collect-only", "--quiet", "-p", "no:cacheprovider", *sys.argv[1:]])
print("imported:", *sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY})))
sys.exit(status)
"""


def imported(*arguments: str, folder: Path = ROOT) -> list[str]:
    """Return which heavy libraries are loaded after a collection in another process."""
    command = [sys.executable, "-c", COLLECT, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return run.stdout.splitlines()[-1].removeprefix("imported:").split()


def test_collecting_all_tests_but_langchains_suites_imports_no_heavy_library() -> None:
    assert imported(*(f"--ignore={suite}" for suite in SUITES)) == []


def test_a_heavy_import_at_the_top_of_a_file_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text("import langchain_core.messages\n\ndef test_nothing() -> None: ...\n")
    assert "langchain_core" in imported(folder=tmp_path)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that import one another as modules of `tests`."""
    import tests

    monkeypatch.setattr(tests, "__path__", [*tests.__path__, str(tmp_path)])
    return tmp_path


def test_late_imports_run_once_and_those_of_imported_modules_first(package: Path) -> None:
    (package / "planted_base.py").write_text(
        "from tests.support.late import COLLECTED\n\nif COLLECTED:\n"
        "    from fractions import Fraction\n\n    HALF = Fraction(1, 2)\n"
    )
    (package / "planted_user.py").write_text(
        "import tests.planted_base\nfrom tests.support.late import COLLECTED\n\nif COLLECTED:\n"
        "    from tests.planted_base import HALF\n\n    runs = [HALF]\n"
    )
    try:
        import tests.planted_user as user  # type: ignore[import-not-found]

        assert not hasattr(user, "HALF")
        late.run_late_imports("tests.planted_user")
        user.runs.append("kept")
        late.run_late_imports("tests.planted_user")
        assert [str(each) for each in user.runs] == ["1/2", "kept"]
    finally:
        for name in ("tests.planted_base", "tests.planted_user"):
            sys.modules.pop(name, None)
