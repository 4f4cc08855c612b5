"""HFGatewayImageTool in LangChain: the tool's own standard tests, messages, artifacts, errors and an agent."""

import asyncio
import base64
import json
import logging
import pickle
from typing import Any

import pytest

from hf_gateway import ImageGateway, ImageResult, errors
from tests.servers.chat import Said, script
from tests.servers.images import base64_of, image_list, png
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.support.embedders import chain
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain.agents import create_agent
    from langchain_core.exceptions import ModelInvalidRequestError
    from langchain_core.messages import ToolMessage, message_to_dict, messages_from_dict
    from langchain_core.tools import ToolException
    from langchain_tests.unit_tests import ToolsUnitTests

    from langchain_hf_gateway import ChatHFGateway, HFGatewayImageTool

    class TestStandard(ToolsUnitTests):
        @property
        def tool_constructor(self) -> type[HFGatewayImageTool]:
            return HFGatewayImageTool

        @property
        def tool_constructor_params(self) -> dict[str, Any]:
            return {"model": "m", "targets": NOWHERE}

        @property
        def tool_invoke_params_example(self) -> dict[str, Any]:
            return {"prompt": "a cat"}

        @property
        def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
            return {"HF_GATEWAY_IMAGE_MODEL": "the/model"}, {"targets": NOWHERE}, {"model": "the/model"}


NOWHERE = ["openai:http://127.0.0.1:9"]
MARK = "MARKED-IMAGE-BYTES"
PROMPT = "a secret prompt of the caller"
REFUSED = Reply(400, {"error": {"message": "Rejected by the safety system", "code": "content_policy_violation"}})


def called(tool: Any, asynchronous: bool, **arguments: Any) -> "ToolMessage":
    call = {"type": "tool_call", "id": "call-1", "name": tool.name, "args": arguments}
    found = asyncio.run(tool.ainvoke(call)) if asynchronous else tool.invoke(call)
    assert isinstance(found, ToolMessage)
    return found


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def asynchronous(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_the_message_says_what_was_made_and_the_images_are_its_artifact(
    asynchronous: bool, primary: FakeOpenAI
) -> None:
    tool = HFGatewayImageTool(model="m", targets=chain(primary), width=64, height=32, steps=4, negative_prompt="a dog")
    message = called(tool, asynchronous, prompt="a cat")
    assert message.content == "Generated 1 image with m: image/png, 69 bytes"
    assert isinstance(message.artifact, ImageResult)
    assert message.artifact[0].data == png("a cat")
    assert message.artifact.served_by == tuple(chain(primary))
    body = primary.requests[0].json
    assert (body["size"], body["num_inference_steps"], body["negative_prompt"]) == ("64x32", 4, "a dog")


def test_the_agent_chooses_the_prompts_alone(asynchronous: bool, primary: FakeOpenAI) -> None:
    tool = HFGatewayImageTool(model="m", targets=chain(primary), negative_prompt="a dog")
    assert list(tool.args) == ["prompt", "negative_prompt"]
    called(tool, asynchronous, prompt="a cat", negative_prompt="a bird", n=50, width=9000)
    body = primary.requests[0].json
    assert (body["negative_prompt"], body["n"], "size" in body) == ("a bird", 1, False)


def test_images_are_blocks_of_the_message_for_a_model_that_sees(asynchronous: bool, primary: FakeOpenAI) -> None:
    tool = HFGatewayImageTool(model="m", targets=chain(primary), show_images=True)
    text, image = called(tool, asynchronous, prompt="a cat").content_blocks
    assert text["type"] == "text"
    assert (image["type"], image["mime_type"]) == ("image", "image/png")
    assert base64.b64decode(image["base64"]) == png("a cat")


def test_a_refusal_is_an_error_of_both_kinds_and_told_to_the_model_on_demand(
    asynchronous: bool, primary: FakeOpenAI
) -> None:
    primary.always(REFUSED)
    tool = HFGatewayImageTool(model="m", targets=chain(primary))
    with pytest.raises(errors.ContentFiltered, match="safety system") as caught:
        called(tool, asynchronous, prompt="a cat")
    assert isinstance(caught.value, ToolException)
    assert isinstance(caught.value, ModelInvalidRequestError)
    assert (caught.value.status, caught.value.target) == (400, chain(primary)[0])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.status, str(again)) == (type(caught.value), 400, str(caught.value))
    handling = HFGatewayImageTool(model="m", targets=chain(primary), handle_tool_error=True)
    message = called(handling, asynchronous, prompt="a cat")
    assert message.status == "error"
    assert "safety system" in str(message.content)


def test_nothing_that_is_shown_has_the_bytes_or_the_key(
    asynchronous: bool, primary: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    primary.always(Reply(200, image_list(png("x") + MARK.encode())))
    caplog.set_level(logging.DEBUG)
    tool = HFGatewayImageTool(model="m", targets=chain(primary), api_key="the-servers-own-key")
    message = called(tool, asynchronous, prompt=PROMPT)
    for shown in (repr(message), str(message), repr(tool), caplog.text):
        assert MARK not in shown
        assert base64_of(MARK.encode())[:12] not in shown
        assert "the-servers-own-key" not in shown


def test_an_agent_makes_an_image_and_goes_on(asynchronous: bool) -> None:
    said = script(Said(tool_calls=(("generate_image", {"prompt": "a cat"}),)), Said("Here it is."))
    with FakeOpenAI(models=None, brain=said) as server:
        tool = HFGatewayImageTool(model="m", targets=chain(server))
        agent = create_agent(ChatHFGateway(model="m", targets=chain(server)), [tool])
        asked = {"messages": [{"role": "user", "content": "Draw a cat"}]}
        done = asyncio.run(agent.ainvoke(asked)) if asynchronous else agent.invoke(asked)
    (made,) = (message for message in done["messages"] if isinstance(message, ToolMessage))
    assert made.artifact[0].data == png("a cat")
    assert done["messages"][-1].content == "Here it is."
    assert server.count("/v1/images/generations") == 1
    assert png("a cat") not in b"".join(request.body for request in server.requests)


def test_it_is_made_from_a_gateway_a_chain_of_the_file_and_a_pickle(primary: FakeOpenAI, tmp_path: Any) -> None:
    gateway = ImageGateway("m", chain(primary), steps=3)
    tool = HFGatewayImageTool.from_gateway(gateway, name="draw")
    assert (tool.gateway, tool.name, tool.steps, tool.status()[0].ready) == (gateway, "draw", 3, True)
    file = tmp_path / "hf-gateway.toml"
    file.write_text(f'[chains.art]\ntask = "image"\nmodel = "m"\ntargets = ["{chain(primary)[0]}"]\nsteps = 5\n')
    read = HFGatewayImageTool.from_config("art", file)
    assert (read.steps, called(read, False, prompt="a cat").artifact[0].data) == (5, png("a cat"))
    copied = pickle.loads(pickle.dumps(tool))
    assert (copied.name, called(copied, False, prompt="a cat").artifact[0].data) == ("draw", png("a cat"))


@pytest.mark.parametrize("given", [{"targets": ["tei:http://127.0.0.1:9"]}, {"stepps": 3}, {"targets": []}])
def test_a_wrong_argument_is_refused_when_the_tool_is_made(given: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError):
        HFGatewayImageTool(**{"model": "m", "targets": NOWHERE, **given})


def test_a_message_with_images_can_be_stored_as_json_without_their_bytes(
    asynchronous: bool, primary: FakeOpenAI
) -> None:
    usage = {"input_tokens": 3, "output_tokens": 5, "cost": 0.04}
    primary.always(Reply(200, image_list(png("x") + MARK.encode(), usage=usage)))
    message = called(HFGatewayImageTool(model="m", targets=chain(primary)), asynchronous, prompt="a cat")
    for dumped in (message.model_dump_json(), json.dumps(message_to_dict(message))):
        assert MARK not in dumped
        assert base64_of(MARK.encode())[4:12] not in dumped
    (restored,) = messages_from_dict([json.loads(json.dumps(message_to_dict(message)))])
    artifact = restored.artifact
    size = len(png("x") + MARK.encode())
    assert artifact["images"] == [{"mime": "image/png", "bytes": size, "seed": None}]
    assert (artifact["served_by"], artifact["usage"]["cost_usd"]) == (chain(primary), "0.04")
    assert message.model_copy(deep=True).artifact[0].data == png("x") + MARK.encode()
