"""What LlamaIndex's messages become on their way to a server, and how answers become instances of classes."""

import base64
import io
import wave
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

import pytest
from blockbuster import blockbuster_ctx
from pydantic import BaseModel

from hf_gateway import errors
from tests.servers.chat import Said, script
from tests.servers.loopback import Loopback, Recorded, Reply
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED
from tests.support.llamaindex_llm_calls import PIXEL, PREDICTS, Person, call

if COLLECTED:
    from llama_index.core.base.llms.types import (
        AudioBlock,
        ChatMessage,
        ImageBlock,
        MessageRole,
        TextBlock,
        ThinkingBlock,
        ToolCallBlock,
    )
    from llama_index.core.prompts import PromptTemplate
    from llama_index.core.types import PydanticProgramMode

    from llamaindex_hf_gateway import HFGatewayLLM
    from tests.support.llamaindex_llm_calls import MULTIPLY, UNSENDABLE, WEATHER


JPEG = base64.b64decode("/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////2Q==")
if COLLECTED:
    TEMPLATE = PromptTemplate("Who is it?")


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None, brain=script("Yes.")) as running:
        yield running


def through(server: Loopback, **fields: Any) -> "HFGatewayLLM":
    return HFGatewayLLM(**{"model": "m", "targets": [f"openai:{server.url}"], "max_retries": 0, **fields})


def body(server: Loopback) -> dict[str, Any]:
    return server.requests[-1].json


def sent(server: Loopback, *messages: "ChatMessage") -> list[dict[str, Any]]:
    """Send messages; returns them as they arrived."""
    through(server).chat(list(messages))
    return body(server)["messages"]


def sound() -> bytes:
    """Return a tenth of a second of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 1, 8000, 800, "NONE", ""))
        writer.writeframes(b"\x80" * 800)
    return file.getvalue()


def tool_result(identity: str, text: str) -> "ChatMessage":
    return ChatMessage(role=MessageRole.TOOL, content=text, additional_kwargs={"tool_call_id": identity})


def function(name: str, arguments: str, identity: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


class TestMessages:
    def test_a_text_is_sent_as_a_text(self, server):
        assert sent(server, ChatMessage(content="foo")) == [{"role": "user", "content": "foo"}]

    def test_several_texts_are_sent_as_llamaindex_reads_them(self, server):
        message = ChatMessage(blocks=[TextBlock(text="foo"), TextBlock(text="bar")])
        assert sent(server, message) == [{"role": "user", "content": message.content}]

    def test_texts_and_images_keep_their_order(self, server):
        link = "https://example.com/cat.png"
        found = sent(server, ChatMessage(blocks=[TextBlock(text="a"), ImageBlock(url=link), TextBlock(text="b")]))
        assert found[0]["content"] == [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": link}},
            {"type": "text", "text": "b"},
        ]

    @pytest.mark.parametrize(
        ("role", "said"),
        [("system", "system"), ("developer", "developer"), ("chatbot", "assistant"), ("model", "assistant")],
    )
    def test_every_role_has_its_name(self, role, said, server):
        # Histories of Cohere's and Google's classes carry their own names of the assistant.
        messages = sent(server, ChatMessage(role=role, content="foo"), ChatMessage(content="bar"))
        assert [message["role"] for message in messages] == [said, "user"]

    def test_a_call_and_its_result_are_joined_by_the_id(self, server):
        # HuggingFaceInferenceAPI sends the id as the tool's name, and no tool_call_id.
        block = ToolCallBlock(tool_call_id="c1", tool_name="multiply", tool_kwargs={"a": 6, "b": 7})
        asked = ChatMessage(role="assistant", blocks=[TextBlock(text="Let me see."), block])
        assert sent(server, ChatMessage(content="6·7?"), asked, tool_result("c1", "42"))[1:] == [
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [function("multiply", '{"a": 6, "b": 7}', "c1")],
            },
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
        ]

    def test_a_call_without_an_id_goes_by_its_tools_name(self, server):
        # As in the histories of Ollama's class.
        asked = ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_name="multiply", tool_kwargs={})])
        messages = sent(server, ChatMessage(content="?"), asked, tool_result("multiply", "42"))
        assert [messages[1]["tool_calls"][0]["id"], messages[2]["tool_call_id"]] == ["multiply"] * 2

    @pytest.mark.parametrize("form", ["dict", "object"])
    def test_calls_in_the_older_place_are_sent_too(self, form, server):
        calls = [function("multiply", '{"a": 6}', "c1"), function("get_time", "{}", "c2")]
        older = [SimpleNamespace(model_dump=lambda each=each: each) for each in calls] if form == "object" else calls
        asked = ChatMessage(role="assistant", content=None, additional_kwargs={"tool_calls": older})
        messages = sent(server, ChatMessage(content="?"), asked, tool_result("c1", "42"), tool_result("c2", "late"))
        assert messages[1] == {"role": "assistant", "content": "", "tool_calls": calls}

    def test_an_answer_goes_back_as_it_came_and_its_calls_once(self):
        said = Said("Let me see.", "Hm, hm.", (("multiply", {"a": 6, "b": 7}),))
        with FakeOpenAI(models=None, brain=script(said, "42")) as server:
            llm = through(server)
            answer = llm.chat_with_tools([MULTIPLY], user_msg="6·7?").message
            assert [type(block) for block in answer.blocks] == [ThinkingBlock, TextBlock, ToolCallBlock]
            (block,) = answer.blocks[2:]
            back = sent(server, ChatMessage(content="6·7?"), answer, tool_result(block.tool_call_id, "42"))
        calls = [function("multiply", '{"a": 6, "b": 7}', block.tool_call_id)]
        thoughts = {"reasoning_content": "Hm, hm."}
        assert back[1] == {"role": "assistant", "content": "Let me see.", "tool_calls": calls, **thoughts}

    @pytest.mark.parametrize("endpoint", ["chat", "astream_chat"])
    async def test_a_block_that_cannot_be_sent_is_named_with_its_place(self, endpoint, server):
        history = [ChatMessage(content="foo"), ChatMessage(blocks=[TextBlock(text="bar"), UNSENDABLE[0]])]
        with pytest.raises(
            errors.InvalidRequest, match="message 1 of 2, from user: block 1, VideoBlock, cannot be sent"
        ):
            await call(through(server), endpoint, history)
        for block in (ThinkingBlock(content="Hm."), ToolCallBlock(tool_name="multiply")):
            with pytest.raises(errors.InvalidRequest, match=type(block).__name__):
                await call(through(server), endpoint, [ChatMessage(blocks=[block])])
        assert server.count() == 0

    def test_a_result_without_the_id_of_its_call_is_refused(self, server):
        with pytest.raises(errors.InvalidRequest, match="has no tool_call_id"):
            sent(server, ChatMessage(content="foo"), ChatMessage(role="tool", content="42"))


class TestMedia:
    def test_an_images_type_is_that_of_its_bytes(self, server, tmp_path):
        path = tmp_path / "cat.png"
        path.write_bytes(JPEG)
        for block in (ImageBlock(path=path), ImageBlock(image=JPEG), ImageBlock(image=io.BytesIO(JPEG), detail="low")):
            (message,) = sent(server, ChatMessage(blocks=[block]))
            (part,) = message["content"]
            assert part["image_url"].pop("url") == f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"
            assert part["image_url"] == ({"detail": "low"} if block.detail else {})

    def test_an_image_of_no_known_type_needs_it_said(self, server):
        with pytest.raises(errors.InvalidRequest, match="pass image_mimetype"):
            sent(server, ChatMessage(blocks=[ImageBlock(image=b"<svg/>")]))
        (message,) = sent(server, ChatMessage(blocks=[ImageBlock(image=b"<svg/>", image_mimetype="image/svg+xml")]))
        assert message["content"][0]["image_url"]["url"].startswith("data:image/svg+xml;base64,")

    def test_what_cannot_be_read_is_told_with_its_place(self, server, tmp_path):
        (tmp_path / "gone.png").write_bytes(PIXEL)
        gone = ImageBlock(path=tmp_path / "gone.png")
        (tmp_path / "gone.png").unlink()
        for block in (gone, ImageBlock()):
            with pytest.raises(errors.InvalidRequest, match="block 0, ImageBlock, cannot be read"):
                sent(server, ChatMessage(blocks=[block]))
        assert server.count() == 0

    def test_the_callers_image_can_be_sent_again(self, server):
        message = ChatMessage(blocks=[ImageBlock(image=io.BytesIO(PIXEL))])
        assert sent(server, message) == sent(server, message)

    @pytest.mark.parametrize("form", ["bytes", "path", "url"])
    async def test_a_sound_is_sent_as_data_with_its_format(self, form, server, tmp_path):
        data, path = sound(), tmp_path / "silence"
        path.write_bytes(data)
        with _Files(data) as files:
            block = {
                "bytes": lambda: AudioBlock(audio=data),
                "path": lambda: AudioBlock(path=path),
                "url": lambda: AudioBlock(url=f"{files.url}/silence.wav"),
            }[form]()
            llm = through(server)
            with blockbuster_ctx():
                await llm.achat([ChatMessage(blocks=[block])])
        (part,) = body(server)["messages"][0]["content"]
        assert (part["type"], part["input_audio"]["format"]) == ("input_audio", "wav")
        assert base64.b64decode(part["input_audio"]["data"]) == data


class _Files(Loopback):
    def __init__(self, data: bytes) -> None:
        self.data = data
        super().__init__()

    def handle(self, request: Recorded) -> Reply:
        return Reply(200, self.data, {"content-type": "audio/wav"})


Thing = TypeVar("Thing")


class Box(BaseModel, Generic[Thing]):
    inside: Thing


class Loose(BaseModel):
    name: str
    nick: str | None = None


class Odd(BaseModel):
    properties: dict[str, int]
    required: str = "default"


class TestInstances:
    def test_a_tool_is_sent_as_llamaindex_describes_it(self, server):
        through(server).chat_with_tools([WEATHER], user_msg="foo", tool_required=True, allow_parallel_tool_calls=True)
        assert body(server)["tools"] == [WEATHER.metadata.to_openai_tool(skip_length_check=True)]
        assert (body(server)["tool_choice"], body(server)["parallel_tool_calls"]) == ("required", True)

    def test_without_tools_nothing_of_tools_is_sent(self, server):
        through(server).chat_with_tools([], user_msg="foo", tool_required=True)
        assert body(server).keys() == {"messages", "model", "stream", "stream_options"}

    def test_a_class_is_a_tool_that_must_be_called(self):
        with FakeOpenAI(models=None) as server:
            through(server).structured_predict(Box[int], TEMPLATE)
            assert [tool["function"]["name"] for tool in body(server)["tools"]] == ["Box_int_"]
            assert body(server)["tool_choice"] == "required"

    @pytest.mark.parametrize(
        ("output_cls", "strict"), [(Person, True), (Box[Person], True), (Loose, None), (Odd, None)]
    )
    def test_a_schema_is_strict_where_it_may_be(self, output_cls, strict):
        # Hosted providers enforce strict schemas alone, and refuse a strict one with a field that may be missing.
        with FakeOpenAI(models=None) as server:
            found = through(server, structured_output="json_schema").structured_predict(output_cls, TEMPLATE)
            wanted = body(server)["response_format"]["json_schema"]
        assert isinstance(found, output_cls)
        assert wanted.get("strict") is strict
        assert wanted["schema"]["additionalProperties"] is False
        assert wanted["schema"]["properties"].keys() == output_cls.model_json_schema()["properties"].keys()

    @pytest.mark.parametrize("predict", PREDICTS)
    @pytest.mark.parametrize("way", ["function_calling", "json_schema"])
    async def test_an_answer_that_is_no_instance_is_an_error(self, way, predict):
        with FakeOpenAI(models=None, brain=script("Ada Lovelace, 36.")) as server:
            llm = through(server, structured_output=way)
            with pytest.raises(errors.BadGeneration, match="the answer is not a valid Person"):
                await call(llm, predict, Person, TEMPLATE)

    @pytest.mark.parametrize("predict", PREDICTS)
    async def test_an_answer_that_was_cut_says_so(self, predict):
        # LlamaIndex's own programs give what there is of it.
        said = Said('{"name": "Ada', finish_reason="length")
        with (
            FakeOpenAI(models=None, brain=script(said)) as server,
            pytest.raises(errors.BadGeneration, match="cut at max_tokens, and is"),
        ):
            await call(through(server, structured_output="json_schema"), predict, Person, TEMPLATE)

    @pytest.mark.parametrize("predict", PREDICTS)
    @pytest.mark.parametrize("way", ["function_calling", "json_schema"])
    async def test_json_among_other_words_is_found(self, way, predict):
        # From a provider that does not hold its model to what was asked.
        with FakeOpenAI(models=None, brain=script('Here: ```json\n{"name": "Ada", "age": 36}\n```')) as server:
            (*_, found) = await call(through(server, structured_output=way), predict, Person, TEMPLATE)
        assert found == Person(name="Ada", age=36)

    @pytest.mark.parametrize("predict", PREDICTS[2:])
    @pytest.mark.parametrize("way", ["function_calling", "json_schema"])
    async def test_a_stream_of_instances_grows(self, way, predict):
        said = '{"name": "Ada Augusta King", "age": 36}'
        answer = Said(tool_calls=(("Person", said),)) if way == "function_calling" else Said(said)
        with FakeOpenAI(models=None, brain=script(answer)) as server:
            found = await call(through(server, structured_output=way), predict, Person, TEMPLATE)
        names = [each.name for each in found if each.name]
        assert names == sorted(names, key=len)
        assert len(set(names)) > 2
        assert found[-1] == Person(name="Ada Augusta King", age=36)

    @pytest.mark.parametrize("predict", PREDICTS)
    @pytest.mark.parametrize(
        "fields",
        [{"pydantic_program_mode": "llm"}, {"is_function_calling_model": False}],
        ids=["by mode", "no tools"],
    )
    async def test_a_model_can_be_asked_in_words_too(self, fields, predict):
        with FakeOpenAI(models=None, brain=script('{"name": "Ada", "age": 36}')) as server:
            (*_, found) = await call(through(server, **fields), predict, Person, TEMPLATE)
            assert body(server).keys() <= {"messages", "model", "stream", "stream_options"}
            assert '"title": "Person"' in body(server)["messages"][0]["content"]
        assert found == Person(name="Ada", age=36)

    def test_the_mode_goes_before_the_way(self):
        with FakeOpenAI(models=None) as server:
            fields = {"structured_output": "json_schema", "pydantic_program_mode": PydanticProgramMode.FUNCTION}
            through(server, **fields).structured_predict(Person, TEMPLATE)
            assert "tools" in body(server)
