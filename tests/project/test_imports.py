"""What an import pulls in: the set of modules, not the time (`benchmarks/imports.py` measures that)."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "sentence_transformers", "numpy", "huggingface_hub", "httpx", "httpx2", "rich"}


def packages_after(code: str, baseline: str = "pass") -> set[str]:
    """Top-level packages, the standard library's aside, that `code` adds to those of `baseline`."""
    script = f"""
import sys, json
{baseline}
before = set(sys.modules)
{code}
added = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(added - set(sys.stdlib_module_names))))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name for name in json.loads(done.stdout.splitlines()[-1]) if not name.startswith(("_", "__editable__"))}


def test_the_core_imports_no_other_package() -> None:
    assert packages_after("import hf_gateway") == {"hf_gateway"}


def test_errors_targets_and_spaces_import_no_other_package() -> None:
    code = "from hf_gateway import Target, VectorSpace, GatewayError, Attempt, Usage, Vectors"
    assert packages_after(code) == {"hf_gateway"}


def test_langchains_door_adds_itself_only() -> None:
    code = "import langchain_hf_gateway; langchain_hf_gateway.HFGatewayEmbeddings"
    # LangChain loads its names lazily too: only the class's own import tells what a subclass of it cannot do without.
    assert packages_after(code, "from langchain_core.embeddings import Embeddings") == {
        "hf_gateway",
        "langchain_hf_gateway",
    }


def test_llamaindexs_door_adds_itself_only() -> None:
    code = "import llamaindex_hf_gateway; llamaindex_hf_gateway.HFGatewayEmbedding"
    baseline = "import llama_index.core.base.embeddings.base, llama_index.core.embeddings.loading"
    assert packages_after(code, baseline) == {"hf_gateway", "llamaindex_hf_gateway"}


@pytest.mark.parametrize("door", ["hf_gateway", "langchain_hf_gateway", "llamaindex_hf_gateway"])
def test_a_bare_import_of_a_door_imports_not_even_its_framework(door: str) -> None:
    assert packages_after(f"import {door}") == {door}


@pytest.mark.parametrize("words", [["--version"], ["completion", "bash"], ["config", "schema"]], ids=" ".join)
def test_a_command_imports_no_other_command(words: list[str]) -> None:
    script = f"""
import sys
from hf_gateway.cli import COMMANDS, main
try:
    main({words})
finally:
    print([name for name in COMMANDS if f"hf_gateway.cli.{{name.replace('-', '_')}}" in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(words[:1] if len(words) > 1 else [])


@pytest.mark.parametrize("targets", ["['hash']", "['tei:http://127.0.0.1:9']", "['openai:http://127.0.0.1:9']"])
def test_building_a_chain_without_a_named_model_pulls_nothing_heavy(targets: str) -> None:
    added = packages_after(f"from hf_gateway import Gateway; Gateway(targets={targets})")
    assert not added & HEAVY


def test_building_a_local_chain_loads_neither_torch_nor_the_model() -> None:
    added = packages_after("from hf_gateway import Gateway; Gateway('all-MiniLM-L6-v2').status()")
    assert not added & {"torch", "transformers", "sentence_transformers", "numpy"}


@pytest.mark.parametrize("door", ["hf_gateway", "langchain_hf_gateway", "llamaindex_hf_gateway"])
def test_every_public_name_loads_and_an_unknown_one_is_an_attribute_error(door: str) -> None:
    code = f"""
import {door} as door
for name in door.__all__:
    getattr(door, name)
assert set(door.__all__) <= set(dir(door))
try:
    door.nonsense
except AttributeError as error:
    assert 'nonsense' in str(error)
"""
    packages_after(code)
