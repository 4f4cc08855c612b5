"""HFGatewayImageTool in LlamaIndex: outputs with ImageBlocks, errors and an agent."""

import asyncio
import json
import pickle
from typing import Any

import pytest

from hf_gateway import ImageGateway, ImageResult, errors
from tests.servers.chat import Said, script
from tests.servers.images import png
from tests.servers.loopback import Reply
from tests.servers.openai import FakeOpenAI
from tests.support.embedders import chain
from tests.support.late import COLLECTED

if COLLECTED:
    from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
    from llama_index.core.base.llms.types import ImageBlock, TextBlock

    from llamaindex_hf_gateway import HFGatewayImageTool, HFGatewayLLM

NOWHERE = ["openai:http://127.0.0.1:9"]
REFUSED = Reply(400, {"error": {"message": "Rejected by the safety system", "code": "content_policy_violation"}})


@pytest.fixture(params=["call", "acall", "()"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def called(tool: Any, form: str, **arguments: Any) -> Any:
    if form == "acall":
        return asyncio.run(tool.acall(**arguments))
    return tool.call(**arguments) if form == "call" else tool(**arguments)


def test_the_output_is_a_text_and_an_image_block(form: str, primary: FakeOpenAI) -> None:
    tool = HFGatewayImageTool(model="m", targets=chain(primary), width=64, height=32)
    output = called(tool, form, prompt="a cat", negative_prompt="a dog")
    text, image = output.blocks
    assert isinstance(text, TextBlock)
    assert isinstance(image, ImageBlock)
    assert output.content == text.text == "Generated 1 image with m: image/png, 69 bytes"
    assert (image.resolve_image().read(), image.image_mimetype) == (png("a cat"), "image/png")
    assert isinstance(output.raw_output, ImageResult)
    assert output.raw_output[0].data == png("a cat")
    assert output.raw_input == {"prompt": "a cat", "negative_prompt": "a dog"}
    assert output.tool_name == "generate_image"
    assert (primary.requests[0].json["size"], primary.requests[0].json["negative_prompt"]) == ("64x32", "a dog")


def test_an_output_can_be_stored_as_json_with_the_result_but_for_its_bytes(form: str, primary: FakeOpenAI) -> None:
    output = called(HFGatewayImageTool(model="m", targets=chain(primary), show_images=False), form, prompt="a cat")
    stored = json.loads(output.model_dump_json())["raw_output"]
    assert (stored["images"], stored["served_by"]) == (
        [{"mime": "image/png", "bytes": 69, "seed": None}],
        chain(primary),
    )


def test_a_model_that_cannot_see_gets_the_text_alone(form: str, primary: FakeOpenAI) -> None:
    output = called(HFGatewayImageTool(model="m", targets=chain(primary), show_images=False), form, prompt="a cat")
    assert [type(block) for block in output.blocks] == [TextBlock]
    assert output.raw_output[0].data == png("a cat")


def test_the_metadata_names_the_arguments_that_an_agent_may_choose() -> None:
    tool = HFGatewayImageTool(model="m", targets=NOWHERE, tool_name="draw", return_direct=True)
    assert (tool.metadata.name, tool.metadata.return_direct) == ("draw", True)
    described = tool.metadata.to_openai_tool()["function"]
    assert list(described["parameters"]["properties"]) == ["prompt", "negative_prompt"]
    assert described["parameters"]["required"] == ["prompt"]


def test_a_refusal_is_raised(form: str, primary: FakeOpenAI) -> None:
    primary.always(REFUSED)
    with pytest.raises(errors.ContentFiltered, match="safety system"):
        called(HFGatewayImageTool(model="m", targets=chain(primary)), form, prompt="a cat")


@pytest.mark.parametrize("refused", [False, True], ids=["an image", "a refusal"])
async def test_an_agent_makes_an_image_and_goes_on(refused: bool) -> None:
    said = script(Said(tool_calls=(("generate_image", {"prompt": "a cat"}),)), Said("That is all."))
    with FakeOpenAI(models=None, brain=said) as server:
        if refused:
            server.always(REFUSED, path="/v1/images/generations")
        tool = HFGatewayImageTool(model="m", targets=chain(server), show_images=False)
        agent = FunctionAgent(tools=[tool], llm=HFGatewayLLM(model="m", targets=chain(server)))
        handler = agent.run(user_msg="Draw a cat")
        events = [event async for event in handler.stream_events()]
        answer = await handler
    (made,) = (event.tool_output for event in events if isinstance(event, ToolCallResult))
    assert str(answer) == "That is all."
    assert made.is_error is refused
    if refused:
        assert "safety system" in made.content
    else:
        assert made.raw_output[0].data == png("a cat")
    assert server.count("/v1/images/generations") == 1


def test_it_is_made_from_a_gateway_a_chain_of_the_file_and_a_pickle(primary: FakeOpenAI, tmp_path: Any) -> None:
    gateway = ImageGateway("m", chain(primary), steps=3)
    tool = HFGatewayImageTool.from_gateway(gateway, tool_name="draw")
    assert (tool.gateway, tool.tool_name, tool.steps, tool.status()[0].ready) == (gateway, "draw", 3, True)
    file = tmp_path / "hf-gateway.toml"
    file.write_text(f'[chains.art]\ntask = "image"\nmodel = "m"\ntargets = ["{chain(primary)[0]}"]\nsteps = 5\n')
    read = HFGatewayImageTool.from_config("art", file, tool_name="paint")
    assert (read.steps, read.tool_name, read(prompt="a cat").raw_output[0].data) == (5, "paint", png("a cat"))
    copied = pickle.loads(pickle.dumps(tool))
    assert (copied.tool_name, copied(prompt="a cat").raw_output[0].data) == ("draw", png("a cat"))


@pytest.mark.parametrize("given", [{"targets": ["tei:http://127.0.0.1:9"]}, {"stepps": 3}, {"targets": []}])
def test_a_wrong_argument_is_refused_when_the_tool_is_made(given: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError):
        HFGatewayImageTool(**{"model": "m", "targets": NOWHERE, **given})
