"""The part of the suite for LlamaIndex LLMs that is about tools, instances of classes, and what a message is made of."""

import base64
import copy
import io
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from hf_gateway import errors
from tests.support.late import COLLECTED
from tests.support.llamaindex_llm_calls import (
    CHAT,
    CHATS,
    PIXEL,
    PREDICT,
    TOOL_CHAT,
    TOOL_CHATS,
    Household,
    Mood,
    Person,
    Suite,
    ask,
    blocks,
    call,
    get_weather,
    images,
    text_of,
    told,
)

if COLLECTED:
    from llama_index.core.base.llms.types import (
        CachePoint,
        ChatMessage,
        ImageBlock,
        MessageRole,
        TextBlock,
        ThinkingBlock,
        ToolCallBlock,
    )
    from llama_index.core.instrumentation.events.llm import LLMStructuredPredictInProgressEvent
    from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate

    from tests.support.llamaindex_llm_calls import MULTIPLY, STRUCTURED_EVENTS, TIME, WEATHER


class Abilities(Suite):
    """What agents and programs rely on."""

    # Tools

    @TOOL_CHAT
    async def test_a_tool_is_called(self, endpoint):
        llm = self.make()
        last = (await call(llm, endpoint, [MULTIPLY, WEATHER], user_msg=self.tool_prompt))[-1]
        (chosen,) = llm.get_tool_calls_from_response(last)
        assert (chosen.tool_name, chosen.tool_kwargs) == ("get_weather", {"city": "Paris"})
        (block,) = blocks(last, ToolCallBlock)
        assert block.tool_call_id == chosen.tool_id
        assert chosen.tool_id not in ("", "get_weather")

    @TOOL_CHAT
    async def test_one_tool_called_twice_is_two_calls_that_can_be_told_apart(self, endpoint):
        # Ollama: the id is the tool's name.
        self.needs("parallel_tools")
        llm = self.make()
        given = {"user_msg": self.parallel_prompt, "allow_parallel_tool_calls": True}
        calls = llm.get_tool_calls_from_response((await call(llm, endpoint, [WEATHER], **given))[-1])
        assert [each.tool_kwargs for each in calls] == [{"city": "Paris"}, {"city": "Rome"}]
        assert len({each.tool_id for each in calls}) == 2

    @TOOL_CHAT
    async def test_one_call_is_one_call_where_more_are_not_allowed(self, endpoint):
        # HuggingFaceInferenceAPI notes it and does not do it; in a stream LlamaIndex asks nobody to.
        llm = self.make()
        for response in await call(llm, endpoint, [WEATHER], user_msg=self.parallel_prompt):
            assert len(llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)) <= 1
        assert len(blocks(response, ToolCallBlock)) == 1

    @pytest.mark.parametrize("endpoint", TOOL_CHATS[2:])
    async def test_calls_can_be_read_while_they_come(self, endpoint):
        # HuggingFaceInferenceAPI: 'list' object has no attribute 'function'. FunctionAgent reads every piece.
        llm = self.make()
        responses = await call(llm, endpoint, [MULTIPLY], user_msg="multiply 6 and 7")
        seen = [llm.get_tool_calls_from_response(each, error_on_no_tool_call=False) for each in responses]
        assert all(isinstance(each.tool_kwargs, dict) for calls in seen for each in calls)
        assert seen[-1][0].tool_kwargs == {"a": 6, "b": 7}
        assert {each.tool_id for calls in seen for each in calls} == {seen[-1][0].tool_id}
        assert {each.delta for each in responses if blocks(each, ToolCallBlock)} == {""}

    @TOOL_CHAT
    async def test_a_tool_that_is_required_is_called(self, endpoint):
        self.needs("tool_choice")
        llm = self.make()
        last = (await call(llm, endpoint, [TIME], user_msg=self.prompt, tool_required=True))[-1]
        (chosen,) = llm.get_tool_calls_from_response(last)
        assert (chosen.tool_name, chosen.tool_kwargs) == ("get_time", {})

    @TOOL_CHAT
    async def test_a_tool_that_is_named_is_called(self, endpoint):
        # HuggingFaceInferenceAPI and Ollama drop tool_choice, which FunctionAgent's initial_tool_choice becomes.
        self.needs("tool_choice")
        llm = self.make()
        last = (await call(llm, endpoint, [WEATHER, TIME], user_msg=self.tool_prompt, tool_choice="get_time"))[-1]
        assert [each.tool_name for each in llm.get_tool_calls_from_response(last)] == ["get_time"]
        none = (await call(llm, endpoint, [WEATHER], user_msg=self.tool_prompt, tool_choice="none"))[-1]
        assert llm.get_tool_calls_from_response(none, error_on_no_tool_call=False) == []

    async def test_no_call_is_an_error_where_one_is_needed(self):
        llm = self.make()
        response = llm.chat_with_tools([MULTIPLY], user_msg=self.prompt)
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        with pytest.raises(errors.BadGeneration):
            llm.get_tool_calls_from_response(response)

    @TOOL_CHAT
    async def test_results_find_their_calls_in_whatever_order_they_come(self, endpoint):
        # HuggingFaceInferenceAPI sends no tool_call_id, and the id as the tool's name.
        self.needs("parallel_tools")
        llm = self.make()
        asked = ChatMessage(content=self.parallel_prompt)
        first = llm.chat_with_tools([WEATHER], user_msg=asked, allow_parallel_tool_calls=True)
        results = [
            ChatMessage(
                role=MessageRole.TOOL,
                content=get_weather(**each.tool_kwargs),
                additional_kwargs={"tool_call_id": each.tool_id},
            )
            for each in llm.get_tool_calls_from_response(first)
        ]
        history = [asked, first.message, *reversed(results)]
        last = (await call(llm, endpoint, [WEATHER], chat_history=history))[-1]
        assert "violet" in text_of(last)

    @TOOL_CHAT
    async def test_the_callers_history_is_not_touched(self, endpoint):
        # HuggingFaceInferenceAPI and Ollama append the user's message to it.
        llm = self.make()
        older = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}]}
        history = [
            ChatMessage(role=MessageRole.SYSTEM, content="Be brief."),
            ChatMessage(content="What time is it?"),
            ChatMessage(role=MessageRole.ASSISTANT, blocks=[ThinkingBlock(content="Hm.")], additional_kwargs=older),
            ChatMessage(role=MessageRole.TOOL, content="late", additional_kwargs={"tool_call_id": "1"}),
        ]
        before = copy.deepcopy(history)
        await call(llm, endpoint, [WEATHER], user_msg=self.tool_prompt, chat_history=history)
        assert history == before

    async def test_tools_are_called_and_their_results_returned(self):
        llm = self.make()
        results = [
            llm.predict_and_call([WEATHER, MULTIPLY], user_msg=self.tool_prompt),
            await llm.apredict_and_call([WEATHER, MULTIPLY], user_msg=self.tool_prompt),
        ]
        assert [each.response for each in results] == ["It is violet in Paris."] * 2

    # Instances of classes

    @PREDICT
    async def test_an_instance_is_predicted(self, predict):
        template = PromptTemplate(self.person_prompt)
        for way in self.structured_ways:
            given: dict[str, Any] = {"temperature": 0.0}
            found = await call(
                self.make(**way), predict, Person, template, llm_kwargs=given, who="Ada Lovelace", years="36"
            )
            assert found[-1] == Person(name="Ada Lovelace", age=36)
            assert given == {"temperature": 0.0}
            assert len(found) == 1 or "stream" in predict

    @PREDICT
    async def test_an_instance_may_have_others_in_it(self, predict):
        template = PromptTemplate("The household of {who}, who is 36 and glad.")
        for way in self.structured_ways:
            (*_, found) = await call(self.make(**way), predict, Household, template, who="Ada Lovelace")
            assert (found.head, found.mood) == (Person(name="Ada Lovelace", age=36), Mood.GLAD)

    @PREDICT
    async def test_predictions_are_announced_and_reported(self, predict):
        # Ollama's native way tells of nothing.
        template, arguments = PromptTemplate(self.person_prompt), {"who": "Ada Lovelace", "years": "36"}
        for way in self.structured_ways:
            with told(*STRUCTURED_EVENTS) as events:
                found = await call(self.make(**way), predict, Person, template, **arguments)
            kinds = [LLMStructuredPredictInProgressEvent] * (len(found) if "stream" in predict else 0)
            assert [type(event) for event in events] == [STRUCTURED_EVENTS[0], *kinds, STRUCTURED_EVENTS[2]]
            assert (events[0].output_cls, events[0].template_args) == (Person, arguments)
            assert events[-1].output == found[-1]

    @PREDICT
    async def test_the_system_prompt_goes_before_a_prediction(self, predict):
        # LlamaIndex's FunctionCallingProgram forgets it in its async form.
        for way in self.structured_ways:
            llm = self.make(system_prompt="Be brief.", **way)
            await call(llm, predict, Person, PromptTemplate(self.person_prompt), who="Ada Lovelace", years="36")
        assert {body["messages"][0]["content"] for body in self.sent()} == {"Be brief."}

    async def test_as_a_structured_llm_it_gives_instances(self):
        text = self.person_prompt.format(who="Ada Lovelace", years="36")
        for way in self.structured_ways:
            llm = self.make(**way).as_structured_llm(Person)
            for endpoint in (*CHATS, "complete", "acomplete"):
                last = (await ask(llm, endpoint, text))[-1]
                assert last.raw == Person(name="Ada Lovelace", age=36)
                assert Person.model_validate_json(text_of(last)) == last.raw

    async def test_a_conversation_may_be_the_prompt(self):
        template = ChatPromptTemplate([ChatMessage(content=self.person_prompt)])
        for way in self.structured_ways:
            found = self.make(**way).structured_predict(Person, template, who="Ada Lovelace", years="36")
            assert found == Person(name="Ada Lovelace", age=36)

    # Blocks

    @CHAT
    @pytest.mark.parametrize("form", ["bytes", "base64", "path", "data url", "file object"])
    async def test_an_image_arrives_as_it_is(self, endpoint, form, pixel):
        # HuggingFaceInferenceAPI and HuggingFaceLLM drop it in silence.
        self.needs("images")
        encoded = base64.b64encode(PIXEL)
        block = {
            "bytes": lambda: ImageBlock(image=PIXEL),
            "base64": lambda: ImageBlock(image=encoded),
            "path": lambda: ImageBlock(path=pixel),
            "data url": lambda: ImageBlock(url=f"data:image/png;base64,{encoded.decode()}"),
            "file object": lambda: ImageBlock(image=io.BytesIO(PIXEL)),
        }[form]()
        await call(self.make(), endpoint, [ChatMessage(blocks=[TextBlock(text="What is this?"), block])])
        assert images(self.sent()[-1]) == [PIXEL]

    async def test_an_image_is_not_read_within_the_event_loop(self, pixel):
        self.needs("images")
        llm, message = self.make(), ChatMessage(blocks=[ImageBlock(path=pixel)])
        with blockbuster_ctx():
            await llm.achat([message])
            await call(llm, "astream_chat", [message])

    @CHAT
    async def test_what_cannot_be_sent_is_refused_and_never_left_out(self, endpoint):
        llm = self.make()
        for block in self.unsendable:
            with pytest.raises(Exception, match=type(block).__name__):
                await call(llm, endpoint, [ChatMessage(blocks=[TextBlock(text="What is this?"), block])])
        assert self.sent() == []

    @CHAT
    async def test_all_texts_of_a_message_arrive(self, endpoint):
        message = ChatMessage(blocks=[TextBlock(text="first"), TextBlock(text="second")])
        await call(self.make(), endpoint, [message])
        assert "first" in str(self.sent()[-1]["messages"])
        assert "second" in str(self.sent()[-1]["messages"])

    @CHAT
    async def test_thoughts_are_kept_apart_from_the_answer(self, endpoint):
        # HuggingFaceInferenceAPI loses them.
        self.needs("thinking")
        responses = await call(self.make(**self.thinking_params), endpoint, [ChatMessage(content=self.prompt)])
        (thought,) = blocks(responses[-1], ThinkingBlock)
        assert thought.content.strip()
        assert thought.content not in text_of(responses[-1])
        if "stream" in endpoint:
            assert "".join(each.additional_kwargs.get("thinking_delta", "") for each in responses) == thought.content
            assert "".join(each.delta for each in responses) == text_of(responses[-1])

    async def test_earlier_thoughts_are_not_sent_back(self):
        said = ChatMessage(
            role=MessageRole.ASSISTANT, blocks=[ThinkingBlock(content="Hm, hm."), TextBlock(text="Yes.")]
        )
        self.make().chat([ChatMessage(content="Is it?"), said, ChatMessage(content=self.prompt)])
        assert [message["content"] for message in self.sent()[-1]["messages"]] == ["Is it?", "Yes.", self.prompt]

    async def test_a_place_for_a_cache_changes_nothing(self):
        point = CachePoint(cache_control={"type": "ephemeral"})
        assert self.make().chat([ChatMessage(blocks=[TextBlock(text=self.prompt), point])]).message.content
