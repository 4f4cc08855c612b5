"""What of LangChain's messages and tools reaches a server, and what of its answer reaches LangChain."""

import copy
import json
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import TypedDict

from hf_gateway.errors import InvalidRequest
from hf_gateway.values.usage import Usage
from tests.servers.chat import Said, script
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import LLAMA, FakeRouter
from tests.support.askers import FORMS, MODEL, Form, ask, sent, through
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_core import exceptions as langchain
    from langchain_core.messages import (
        AIMessage,
        AIMessageChunk,
        ChatMessage,
        FunctionMessage,
        HumanMessage,
        SystemMessage,
        ToolMessage,
    )
    from langchain_core.tools import tool
    from langchain_core.utils.function_calling import convert_to_openai_tool

    from langchain_hf_gateway import ChatHFGateway
    from langchain_hf_gateway.messages import to_openai, usage_metadata


PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
DATA = f"data:image/png;base64,{PICTURE}"
CALL = {"name": "add", "args": {"a": 1, "b": 2}, "id": "call_1", "type": "tool_call"}
SENT_CALL = {"type": "function", "id": "call_1", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class PersonV1(BaseModelV1):
    """A person."""

    name: str
    age: int


class PersonDict(TypedDict):
    """A person."""

    name: Annotated[str, ..., "the name"]
    age: Annotated[int, ..., "in years"]


if COLLECTED:

    @tool
    def plus(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b


def minus(a: int, b: int) -> int:
    """Subtract b from a."""
    return a - b


class TestMessages:
    @pytest.mark.parametrize(
        "block",
        [
            pytest.param({"type": "image_url", "image_url": {"url": DATA}}, id="OpenAI"),
            pytest.param({"type": "image_url", "image_url": DATA}, id="OpenAI, the link alone"),
            pytest.param({"type": "image", "base64": PICTURE, "mime_type": "image/png"}, id="v1"),
            pytest.param(
                {"type": "image", "source_type": "base64", "data": PICTURE, "mime_type": "image/png"}, id="v0"
            ),
            pytest.param(
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
                id="Anthropic",
            ),
        ],
    )
    def test_a_picture_is_sent_as_openais_form_has_it(self, primary, block):
        # ChatHuggingFace sends standard blocks as they are.
        ask(through(primary), asked=[HumanMessage(["What is this?", block])])
        assert sent(primary)["messages"] == [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": DATA}},
                ],
            }
        ]

    def test_a_picture_reaches_ollama_as_its_bytes_and_a_link_is_refused_before_anything_is_sent(self):
        with FakeOllama({MODEL: {"capabilities": ["completion", "vision"]}}) as server:
            model = ChatHFGateway(model=MODEL, targets=[{"kind": "ollama", "url": server.url}])
            ask(model, asked=[HumanMessage([{"type": "image", "base64": PICTURE, "mime_type": "image/png"}])])
            assert sent(server)["messages"][0]["images"] == [PICTURE]
            with pytest.raises(langchain.ModelNotFoundError, match="not by a URL"):
                ask(model, asked=[HumanMessage([{"type": "image", "url": "https://example.com/a.png"}])])
            assert server.count() == 1

    def test_an_answer_in_v1_blocks_can_be_sent_back(self, primary):
        # ChatHuggingFace echoes the block of a tool call into the content.
        said = Said("Let me see.", "Adding is best.", (("plus", {"a": 1, "b": 2}),))
        for form in FORMS:
            with FakeOpenAI(models=None, brain=script(said, "3")) as server:
                model = through(server, output_version="v1").bind_tools([plus])
                answer = ask(model, form, "What is 1 + 2?")
                assert [block["type"] for block in answer.content] == ["reasoning", "text", "tool_call"]
                result = plus.invoke(answer.tool_calls[0])
                ask(model, form, [HumanMessage("What is 1 + 2?"), answer, result])
                spoken = sent(server)["messages"][1]
                assert (spoken["role"], spoken["content"]) == ("assistant", "Let me see.")
                assert [call["id"] for call in spoken["tool_calls"]] == [answer.tool_calls[0]["id"]]

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            pytest.param(
                lambda: AIMessage(content_blocks=[{"type": "text", "text": "So: "}, CALL]),  # type: ignore[list-item]
                {"role": "assistant", "content": "So: ", "tool_calls": [SENT_CALL]},
                id="v1 blocks",
            ),
            pytest.param(
                lambda: AIMessage(content=[dict(CALL)]),
                {"role": "assistant", "content": "", "tool_calls": [SENT_CALL]},
                id="a call in the content alone",
            ),
            pytest.param(
                lambda: AIMessage(
                    [
                        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                        {"type": "text", "text": "So: ", "cache_control": {"type": "ephemeral"}},
                        {"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1, "b": 2}},
                    ],
                    tool_calls=[CALL],
                ),
                {"role": "assistant", "content": "So: ", "tool_calls": [SENT_CALL], "reasoning_content": "Hm."},
                id="Anthropic's",
            ),
            pytest.param(
                lambda: AIMessage([{"type": "tool_use", "id": "call_1", "name": "add", "input": {"a": 1, "b": 2}}]),
                {"role": "assistant", "content": "", "tool_calls": [SENT_CALL]},
                id="Anthropic's call in the content alone",
            ),
            pytest.param(
                lambda: AIMessage(
                    [
                        {"type": "reasoning", "summary": []},
                        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
                    ]
                ),
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{**SENT_CALL, "function": {"name": "add", "arguments": "{}"}}],
                },
                id="OpenAI's Responses",
            ),
            pytest.param(
                lambda: AIMessage([{"type": "text", "text": "one "}, {"type": "text", "text": "sentence"}]),
                {"role": "assistant", "content": "one sentence"},
                id="a sentence in pieces",
            ),
            pytest.param(
                lambda: AIMessage([{"type": "refusal", "refusal": "No."}]),
                {"role": "assistant", "content": "No."},
                id="a refusal",
            ),
            pytest.param(
                lambda: HumanMessage("hello", name="example_user"),
                {"role": "user", "content": "hello", "name": "example_user"},
                id="a name",
            ),
            pytest.param(
                lambda: HumanMessage([{"type": "text-plain", "text": "a file", "mime_type": "text/plain"}]),
                {"role": "user", "content": "a file"},
                id="a plain text",
            ),
            pytest.param(
                lambda: ChatMessage("be brief", role="developer"),
                {"role": "developer", "content": "be brief"},
                id="developer",
            ),
            pytest.param(
                lambda: SystemMessage(["one", {"type": "text", "text": "two"}]),
                {"role": "system", "content": "one\ntwo"},
                id="system",
            ),
            pytest.param(
                lambda: HumanMessage([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]),
                {
                    "role": "user",
                    "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
                },
                id="a sound",
            ),
        ],
    )
    def test_a_message_is_written_in_openais_form_and_stays_as_it_is(self, message, expected):
        message = message()
        before = copy.deepcopy(message)
        assert to_openai([message]) == [expected]
        assert message == before

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("3", "3"),
            ([{"type": "text", "text": "3"}], "3"),
            ([{"type": "text", "text": "3"}, {"type": "json", "json": {"more": 4}}], '3\n{"more": 4}'),
            ([], ""),
        ],
    )
    def test_what_a_tool_returned_is_sent_as_text(self, content, expected):
        messages = [AIMessage("", tool_calls=[CALL]), ToolMessage(content, tool_call_id="call_1", name="add")]
        returned = {"role": "tool", "tool_call_id": "call_1", "name": "add", "content": expected}
        assert to_openai(messages)[1] == returned

    def test_what_a_tool_says_of_its_failure_is_sent(self, primary):
        failed = ToolMessage("Error: b is missing", tool_call_id="call_1", status="error")
        ask(through(primary), asked=[HumanMessage("hi"), AIMessage("", tool_calls=[CALL]), failed])
        # ChatHuggingFace: "Last message must be a HumanMessage!" (langchain#15232).
        assert sent(primary)["messages"][2]["content"] == "Error: b is missing"

    def test_anthropics_tool_results_stand_before_what_the_user_says_with_them(self, primary):
        result = {"type": "tool_result", "tool_use_id": "call_1", "content": "3"}
        messages = [
            HumanMessage("1 + 2?"),
            AIMessage("", tool_calls=[CALL]),
            HumanMessage([result, {"type": "text", "text": "Is it right?"}]),
        ]
        ask(through(primary), asked=messages)
        assert [message["role"] for message in sent(primary)["messages"]] == ["user", "assistant", "tool", "user"]

    def test_a_call_that_could_not_be_read_is_sent_back_where_it_was_answered_and_only_there(self):
        broken = AIMessage(
            "", invalid_tool_calls=[{"name": "add", "args": '{"a": 1,', "id": "call_1", "error": "no JSON"}]
        )
        assert "tool_calls" not in to_openai([broken])[0]
        answered = to_openai([broken, ToolMessage("that was no JSON", tool_call_id="call_1")])
        assert answered[0]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1,'}

    @pytest.mark.parametrize(
        ("message", "said"),
        [
            (
                lambda: HumanMessage(["look", {"type": "video", "url": "https://example.com/a.mp4"}]),
                "'video' at place 1",
            ),
            (lambda: HumanMessage([{"type": "hologram"}]), "'hologram' at place 0"),
            (
                lambda: AIMessage([{"type": "server_tool_call", "id": "1", "name": "web", "args": {}}]),
                "'server_tool_call'",
            ),
            (
                lambda: HumanMessage([{"type": "image", "file_id": "file-1", "extras": PICTURE}]),
                "Unsupported source type",
            ),
            (
                lambda: HumanMessage([{"type": "file", "url": "https://example.com/a.pdf"}]),
                "does not support file URLs",
            ),
            (lambda: FunctionMessage("3", name="add"), "role 'function'"),
        ],
        ids=["a video", "unknown", "a server's tool", "a file by id", "a file by URL", "a function's answer"],
    )
    def test_what_cannot_be_sent_is_an_error_that_names_its_place_and_shows_no_picture(self, primary, message, said):
        with pytest.raises(langchain.ModelInvalidRequestError) as caught:
            ask(through(primary), asked=[HumanMessage("hi"), message()])
        assert said in str(caught.value)
        assert "message 1 of 2" in str(caught.value)
        assert PICTURE not in str(caught.value)
        assert primary.count() == 0


class TestTools:
    TOOLS = {
        "tool": lambda: plus,
        "function": lambda: minus,
        "Pydantic": lambda: Person,
        "Pydantic v1": lambda: PersonV1,
        "TypedDict": lambda: PersonDict,
        "schema": lambda: Person.model_json_schema(),
    }

    @pytest.mark.parametrize("given", TOOLS)
    def test_every_kind_of_tool_is_sent_in_openais_form(self, primary, given):
        ask(through(primary).bind_tools([self.TOOLS[given]()]), asked="hi")
        (form,) = sent(primary)["tools"]
        assert form["type"] == "function"
        assert set(form["function"]["parameters"]["properties"]) in ({"a", "b"}, {"name", "age"})

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ("auto", "auto"),
            ("none", "none"),
            ("any", "required"),
            ("required", "required"),
            (True, "required"),
            (False, None),
            (None, None),
            ("minus", "required"),
            ({"type": "function", "function": {"name": "plus"}}, "required"),
        ],
    )
    def test_every_form_of_tool_choice_works_with_several_tools(self, primary, choice, expected):
        # ChatHuggingFace takes "any" for a function's name, and raises ValueError for more than one tool.
        answer = ask(through(primary).bind_tools([plus, minus], tool_choice=choice), asked="Hello 5 6")
        assert sent(primary).get("tool_choice") == expected
        assert bool(answer.tool_calls) is (expected not in (None, "auto", "none"))

    def test_a_tool_choice_that_names_no_tool_is_an_error_that_names_the_nearest(self, primary):
        with pytest.raises(InvalidRequest, match="did you mean 'minus'"):
            ask(through(primary).bind_tools([plus, minus], tool_choice="minos"))
        assert primary.count() == 0

    def test_strict_parallel_calls_and_a_format_are_passed_on(self, primary):
        format_ = {"type": "json_schema", "json_schema": {"name": "Person", "schema": Person.model_json_schema()}}
        model = through(primary).bind_tools([plus], strict=True, parallel_tool_calls=False, response_format=format_)
        ask(model, asked="hi")
        body = sent(primary)
        assert (body["tools"][0]["function"]["strict"], body["parallel_tool_calls"]) == (True, False)
        assert body["response_format"] == format_

    @pytest.mark.parametrize("form", FORMS)
    def test_calls_are_read_with_their_ids_and_arguments(self, form: Form):
        said = Said(tool_calls=(("plus", {"a": 1, "b": 2}), ("minus", {"a": 3, "b": 4})))
        with FakeOpenAI(models=None, brain=script(said)) as server:
            answer = ask(through(server).bind_tools([plus, minus]), form)
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == list(said.tool_calls)
        assert len({call["id"] for call in answer.tool_calls}) == 2
        assert (answer.text, answer.response_metadata["finish_reason"]) == ("", "tool_calls")

    @pytest.mark.parametrize("arguments", ['{"a": 1,', "[1, 2]", '"text"'])
    def test_a_call_whose_arguments_are_no_object_is_an_invalid_one(self, arguments):
        with FakeOpenAI(models=None, brain=script(Said(tool_calls=(("plus", arguments),)))) as server:
            answer = ask(through(server).bind_tools([plus]))
        assert answer.tool_calls == []
        assert [(call["name"], call["args"]) for call in answer.invalid_tool_calls] == [("plus", arguments)]


class TestStructuredOutput:
    ASKED = "Return JSON with 'name' and 'age' of Ada, who is 36"
    SCHEMAS = {
        "Pydantic": lambda: Person,
        "Pydantic v1": lambda: PersonV1,
        "TypedDict": lambda: PersonDict,
        "JSON schema": lambda: Person.model_json_schema(),
        "a tool": lambda: convert_to_openai_tool(Person),
    }

    @pytest.mark.parametrize("kind", SCHEMAS)
    @pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
    @pytest.mark.parametrize("form", FORMS[:2])
    def test_every_method_gives_what_the_schema_says(self, form: Form, method, kind):
        schema = self.SCHEMAS[kind]()
        # ChatHuggingFace.with_structured_output(Person): NotImplementedError (langchain#32197); with "json_schema" a dict.
        text = '{"name": "Ada", "age": 36}'
        said = Said(tool_calls=((getattr(schema, "__name__", "Person"), text),)) if "func" in method else Said(text)
        with FakeOpenAI(models=None, brain=script(said)) as server:
            person: Any = ask(through(server).with_structured_output(schema, method=method), form, self.ASKED)
        if isinstance(schema, type) and issubclass(schema, BaseModel | BaseModelV1):
            assert person == schema(name="Ada", age=36)
        else:
            assert person == {"name": "Ada", "age": 36}

    def test_the_method_decides_what_is_sent(self, primary):
        # ChatHuggingFace sends {"type": "json_object", "schema": ...}, which is no form of OpenAI's.
        model = through(primary)
        model.with_structured_output(Person, strict=True).invoke(self.ASKED)
        body = sent(primary)
        assert body["tool_choice"] == "required"
        assert [tool["function"]["name"] for tool in body["tools"]] == ["Person"]
        assert body["tools"][0]["function"]["strict"] is True
        model.with_structured_output(Person, method="json_schema", strict=True).invoke(self.ASKED)
        form = sent(primary)["response_format"]
        assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == (
            "json_schema",
            "Person",
            True,
        )
        assert set(form["json_schema"]["schema"]["properties"]) == {"name", "age"}
        assert form["json_schema"]["schema"]["additionalProperties"] is False
        model.with_structured_output(Person.model_json_schema(), method="json_mode").invoke(self.ASKED)
        assert sent(primary)["response_format"] == {"type": "json_object"}

    def test_what_does_not_fit_is_an_error_and_with_include_raw_is_told_beside_the_answer(self):
        for method, said in {
            "function_calling": Said(tool_calls=(("Person", {"name": "Ada", "age": "unknown"}),)),
            "json_schema": Said('{"name": "Ada", "age": "unknown"}'),
        }.items():
            with FakeOpenAI(models=None, brain=script(said)) as server:
                with pytest.raises((ValidationError, langchain.OutputParserException), match="age"):
                    through(server).with_structured_output(Person, method=method).invoke("Ada?")
                told = through(server).with_structured_output(Person, method=method, include_raw=True).invoke("Ada?")
            assert isinstance(told["raw"], AIMessage)
            assert (told["parsed"], "age" in str(told["parsing_error"])) == (None, True)

    def test_with_include_raw_what_fits_comes_with_its_message(self, primary):
        told = through(primary).with_structured_output(Person, include_raw=True).invoke("Ada is 36")
        assert isinstance(told["raw"], AIMessage)
        assert isinstance(told["parsed"], Person)
        assert told["parsing_error"] is None

    def test_an_unknown_method_is_an_error_that_names_the_nearest_and_json_mode_cannot_be_strict(self, primary):
        with pytest.raises(InvalidRequest, match="did you mean 'json_schema'"):
            through(primary).with_structured_output(Person, method="json-schema")
        with pytest.raises(InvalidRequest, match="strict=True"):
            through(primary).with_structured_output(Person, method="json_mode", strict=True)

    def test_ollama_holds_the_answer_to_the_schema(self):
        with FakeOllama({MODEL: {"capabilities": ["completion", "tools"]}}) as server:
            model = ChatHFGateway(model=MODEL, targets=[{"kind": "ollama", "url": server.url}])
            for method in ("function_calling", "json_schema"):
                assert isinstance(model.with_structured_output(Person, method=method).invoke("Ada is 36"), Person)
                assert set(sent(server)["format"]["properties"]) == {"name", "age"}


class TestAnswers:
    @pytest.mark.parametrize("form", FORMS)
    def test_it_says_who_answered_and_how_it_ended(self, form: Form):
        # ChatHuggingFace reports the name that was asked for, whatever served, and no model_provider.
        with FakeRouter(brain=script("Once")) as router:
            keyed = {"kind": "hf", "url": router.url, "credential": "hf_test", "provider": "nebius"}
            model = ChatHFGateway(model=LLAMA, targets=[keyed])
            said = ask(model, form).response_metadata
        assert (said["model_name"], said["provider"]) == ("Llama-3.1-8B-Instruct", "nebius")
        assert (said["model_provider"], said["finish_reason"]) == (model._get_ls_params()["ls_provider"], "stop")
        assert said["request_id"]
        assert said["hf_gateway"]["served_by"] == model.gateway.targets[0].label
        assert [attempt["outcome"] for attempt in said["hf_gateway"]["attempts"]] == ["served"]
        assert json.loads(json.dumps(said)) == said

    @pytest.mark.parametrize("form", FORMS)
    def test_a_calls_own_model_is_asked_for_and_reported(self, primary, form: Form):
        answer = ask(through(primary), form, model="org/another")
        assert (sent(primary)["model"], answer.response_metadata["model_name"]) == ("org/another", "org/another")

    @pytest.mark.parametrize("form", FORMS)
    def test_thoughts_are_a_block_of_their_own(self, form: Form):
        # ChatHuggingFace drops them.
        with FakeOpenAI(models=None, brain=script(Said("Yes.", reasoning="Let me think."))) as server:
            answer = ask(through(server), form)
        assert answer.text == "Yes."
        assert answer.content_blocks == [
            {"type": "reasoning", "reasoning": "Let me think."},
            {"type": "text", "text": "Yes."},
        ]

    @pytest.mark.parametrize("form", FORMS)
    def test_in_v1_thoughts_text_and_calls_stay_apart(self, form: Form):
        # langchain-core 1.7.2 numbers a call like the text before it, and adding up the chunks makes one block of the two.
        calls = (("plus", {"a": 1, "b": 2}), ("minus", {"a": 3, "b": 4}))
        with FakeOpenAI(models=None, brain=script(Said("Wait.", "Let me think.", calls))) as server:
            answer = ask(through(server, output_version="v1").bind_tools([plus, minus]), form)
        assert [block["type"] for block in answer.content] == ["reasoning", "text", "tool_call", "tool_call"]
        assert answer.content[0]["reasoning"] == "Let me think."
        assert [(block["name"], block["args"]) for block in answer.content[2:]] == list(calls)

    @pytest.mark.parametrize("form", FORMS)
    def test_tokens_are_counted_also_in_streams_and_once(self, form: Form):
        # ChatHuggingFace asks for no usage in streams, and knows no details.
        said = Said("Yes.", prompt_tokens=10, completion_tokens=7, cached_tokens=4, reasoning_tokens=5)
        with FakeOpenAI(models=None, brain=script(said)) as server:
            answer = ask(through(server), form)
        assert answer.usage_metadata == {
            "input_tokens": 10,
            "output_tokens": 7,
            "total_tokens": 17,
            "input_token_details": {"cache_read": 4},
            "output_token_details": {"reasoning": 5},
        }

    def test_tokens_that_nobody_counted_are_unknown_and_not_0(self):
        assert usage_metadata(Usage()) is None
        assert usage_metadata(Usage(3)) is None
        with FakeOpenAI(models=None, usage_in_stream=False) as server:
            assert ask(through(server), "stream").usage_metadata is None

    @pytest.mark.parametrize("form", FORMS)
    def test_logprobs_come_where_they_were_asked_for(self, primary, form: Form):
        answer = ask(through(primary, logprobs=True, top_logprobs=2), form, "one two")
        tokens = answer.response_metadata["logprobs"]["content"]
        assert "".join(each["token"] for each in tokens) == answer.text
        assert len(tokens[0]["top_logprobs"]) == 2
        assert "logprobs" not in ask(through(primary), form).response_metadata

    def test_the_last_chunk_alone_says_who_answered(self, primary):
        *chunks, last = through(primary).stream("one two three")
        assert isinstance(last, AIMessageChunk)
        assert (last.content, last.chunk_position) == ("", "last")
        assert last.response_metadata["hf_gateway"]["first_content_seconds"] > 0
        assert all(not chunk.response_metadata and not chunk.usage_metadata and chunk.content for chunk in chunks)
