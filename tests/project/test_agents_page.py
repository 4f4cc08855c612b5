"""docs/agents.md: both agents run as written, against an Ollama whose model calls the tool first."""

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.config_pages import ROOT
from tests.servers.chat import Said, text_of
from tests.servers.ollama import FakeOllama

PAGE = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```python\n(.*?)^```\n.*?^```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.xdist_group("torch")


def clerk(asked: dict[str, Any]) -> Said:
    """Look the order up, then answer with what was found."""
    last = asked["messages"][-1]
    if last["role"] == "tool":
        return Said(f"Order 1042 is {text_of(last)}.")
    assert text_of(last) == "What is order 1042?"
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["find_order"]
    return Said(tool_calls=(("find_order", {"number": 1042}),))


@pytest.mark.parametrize(("code", "printed"), SHOWN, ids=["langchain", "llamaindex"])
def test_an_agent_of_the_page_prints_what_is_shown(code: str, printed: str) -> None:
    able = {"capabilities": ["completion", "tools"], "context_length": 131_072}
    with FakeOllama({"llama3.1": able}, brain=clerk) as ollama:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OLLAMA_HOST": ollama.url}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=300
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed
