"""`from_gateway` of the frameworks' classes: a gateway of the other task is refused at once."""

from typing import Any

import pytest

from hf_gateway import Gateway
from hf_gateway.errors import ConfigError
from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings
from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM

NOWHERE = ["openai:http://127.0.0.1:9"]


@pytest.mark.parametrize(
    ("door", "task", "given"),
    [
        (HFGatewayEmbeddings, "embedding", "chat"),
        (HFGatewayEmbedding, "embedding", "chat"),
        (ChatHFGateway, "chat", "embedding"),
        (HFGatewayLLM, "chat", "embedding"),
    ],
)
def test_a_gateway_for_another_task_is_refused_and_the_error_names_both(door: Any, task: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=f"{door.__name__} is for {task}, and this gateway was built for {given}"):
        door.from_gateway(Gateway("test/model", NOWHERE, task=given))
    right: Any = task
    assert door.from_gateway(Gateway("test/model", NOWHERE, task=right)).gateway.task == task
