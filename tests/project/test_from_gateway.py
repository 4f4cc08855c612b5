"""`from_gateway` of the frameworks' classes: a gateway of the other task is refused at once."""

from typing import Any

import pytest

from hf_gateway import Gateway
from hf_gateway.errors import ConfigError
from tests.support.doors import door
from tests.support.late import COLLECTED

if COLLECTED:
    pass


NOWHERE = ["openai:http://127.0.0.1:9"]


@pytest.mark.parametrize(
    ("name", "task", "given"),
    [
        ("HFGatewayEmbeddings", "embedding", "chat"),
        ("HFGatewayEmbedding", "embedding", "chat"),
        ("ChatHFGateway", "chat", "embedding"),
        ("HFGatewayLLM", "chat", "embedding"),
    ],
)
def test_a_gateway_for_another_task_is_refused_and_the_error_names_both(name: str, task: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} is for {task}, and this gateway was built for {given}"):
        door(name).from_gateway(Gateway("test/model", NOWHERE, task=given))
    right: Any = task
    assert door(name).from_gateway(Gateway("test/model", NOWHERE, task=right)).gateway.task == task
