"""The frameworks' classes begin alike: `from_gateway` refuses a gateway of another task, and making one warns of nothing."""

import subprocess
import sys
from typing import Any

import pytest

from hf_gateway import Gateway
from hf_gateway.errors import ConfigError
from tests.support.doors import door

NOWHERE = ["openai:http://127.0.0.1:9"]


@pytest.mark.parametrize(
    ("name", "task", "given"),
    [
        ("HFGatewayEmbeddings", "embedding", "chat"),
        ("HFGatewayEmbedding", "embedding", "chat"),
        ("ChatHFGateway", "chat", "embedding"),
        ("HFGatewayLLM", "chat", "embedding"),
        ("HFGatewayImageTool", "image", "chat"),
        ("HFGatewayClassifier", "classification", "embedding"),
        ("HFGatewaySelector", "classification", "chat"),
        ("HFGatewayReranker", "rerank", "embedding"),
        ("HFGatewayRerank", "rerank", "chat"),
    ],
)
def test_a_gateway_for_another_task_is_refused_and_the_error_names_both(name: str, task: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} is for {task}, and this gateway was built for {given}"):
        door(name).from_gateway(Gateway("test/model", NOWHERE, task=given))
    right: Any = task
    assert door(name).from_gateway(Gateway("test/model", NOWHERE, task=right)).gateway.task == task


def test_no_class_makes_pydantic_warn() -> None:
    code = "\n".join(
        f"import {package}; [getattr({package}, name) for name in {package}.__all__]"
        for package in ("langchain_hf_gateway", "llamaindex_hf_gateway")
    )
    warning = "error::pydantic.warnings.GenericBeforeBaseModelWarning"
    done = subprocess.run([sys.executable, "-W", warning, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "GenericBeforeBaseModelWarning" in done.stderr) == (0, False), done.stderr
