"""HFGatewayLLM in LlamaIndex's agents, query engines and chat engines, from one end to the other."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from hf_gateway import Target, errors
from tests.servers.chat import Said, default_brain, script
from tests.servers.loopback import Loopback, cut_stream, stall_stream
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED
from tests.support.llamaindex_llm_calls import get_weather, multiply

if COLLECTED:
    from llama_index.core import Document, Settings, VectorStoreIndex
    from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent, ToolCallResult
    from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
    from llama_index.core.chat_engine import SimpleChatEngine
    from llama_index.core.indices.query.query_transform.base import StepDecomposeQueryTransform
    from llama_index.core.memory import ChatMemoryBuffer
    from llama_index.core.query_engine import MultiStepQueryEngine, RouterQueryEngine, SubQuestionQueryEngine
    from llama_index.core.question_gen import LLMQuestionGenerator
    from llama_index.core.response_synthesizers import get_response_synthesizer
    from llama_index.core.selectors import PydanticMultiSelector
    from llama_index.core.tools import FunctionTool, QueryEngineTool

    from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM
    from tests.support.llamaindex_llm_calls import MULTIPLY, TIME, WEATHER


ASKED = "Call get_weather for 'Paris' and 'Rome'"
BOTH = "The tool says: It is violet in Paris.; It is violet in Rome."
TEXTS = ["A try statement handles errors.", "A for loop repeats.", "The yield keyword makes a generator."]

STREAMING = pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "whole"])


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    able = ["completion", "tools", "thinking"]
    with FakeOllama({"m": {"capabilities": able, "context_length": 8192}}) as server:
        yield server


def through(*servers: Loopback, **fields: Any) -> "HFGatewayLLM":
    targets = [Target("ollama" if isinstance(each, FakeOllama) else "openai", url=each.url) for each in servers]
    return HFGatewayLLM(**{"model": "m", "targets": targets, "max_retries": 0, **fields})


async def run(agent: Any, text: str, **given: Any) -> tuple[Any, list[Any]]:
    """Run an agent; returns what it answers, and the events on the way."""
    handler = agent.run(user_msg=text, **given)
    events = [event async for event in handler.stream_events()]
    return await handler, events


class TestFunctionAgent:
    @STREAMING
    async def test_the_conversation_goes_on_when_the_first_target_fails_in_the_middle(self, streaming, primary, ollama):
        async def get_weather(city: str) -> str:
            """Say what the weather is like in a city."""
            await asyncio.to_thread(primary.close)
            return f"It is violet in {city}."

        llm = through(primary, ollama)
        agent = FunctionAgent(tools=[get_weather], llm=llm, streaming=streaming)
        answer, events = await run(agent, ASKED)
        results = [event for event in events if isinstance(event, ToolCallResult)]
        assert sorted(event.tool_kwargs["city"] for event in results) == ["Paris", "Rome"]
        assert len({event.tool_id for event in results}) == 2
        assert (primary.count(), ollama.count()) == (1, 1)
        # The tools ran at once, so their results came in either order; each is that of its own call.
        assert sorted(answer.response.content.removeprefix("The tool says: ").split("; ")) == [
            "It is violet in Paris.",
            "It is violet in Rome.",
        ]
        assert answer.raw["hf_gateway"]["served_by"] == f"ollama:{ollama.url}"

    async def test_a_stream_that_breaks_before_its_first_piece_starts_afresh_elsewhere(self, primary, backup):
        primary.fail(cut_stream(1))
        answer, _ = await run(FunctionAgent(tools=[WEATHER], llm=through(primary, backup)), ASKED)
        assert sorted(answer.response.content) == sorted(BOTH)

    async def test_what_it_streams_is_what_it_says(self, primary):
        agent = FunctionAgent(tools=[WEATHER], llm=through(primary, reasoning_effort="low"))
        answer, events = await run(agent, ASKED)
        pieces = [event for event in events if isinstance(event, AgentStream)]
        assert "".join(piece.delta for piece in pieces) == answer.response.content
        thoughts = "".join(piece.thinking_delta or "" for piece in pieces)
        assert thoughts == "Let me think about this first." * 2
        # Pieces of arguments are there while they come, and the whole in the end.
        seen = [call.tool_kwargs.get("city") for piece in pieces for call in piece.tool_calls]
        assert {"Paris", "Rome"} <= set(seen)

    async def test_it_remembers_the_calls_of_an_earlier_turn(self, primary):
        agent = FunctionAgent(tools=[WEATHER, TIME], llm=through(primary), system_prompt="Be brief.")
        memory = ChatMemoryBuffer.from_defaults(token_limit=10_000)
        await run(agent, ASKED, memory=memory)
        answer, _ = await run(agent, "Hello again", memory=memory)
        assert answer.response.content == "I heard: Hello again"
        roles = [message["role"] for message in primary.requests[-1].json["messages"]]
        assert roles == ["system", "user", "assistant", "tool", "tool", "assistant", "user"]

    @STREAMING
    async def test_its_first_tool_can_be_chosen(self, streaming, primary):
        agent = FunctionAgent(
            tools=[WEATHER, TIME], llm=through(primary), initial_tool_choice="get_time", streaming=streaming
        )
        answer, _ = await run(agent, "Tell me a story")
        assert answer.response.content == "The tool says: half past violet"

    @STREAMING
    async def test_one_call_at_a_time_is_one_at_a_time(self, streaming, ollama):
        # Ollama cannot be told, and calls both.
        agent = FunctionAgent(
            tools=[WEATHER], llm=through(ollama), allow_parallel_tool_calls=False, streaming=streaming
        )
        _, events = await run(agent, ASKED)
        assert [event.tool_kwargs for event in events if isinstance(event, ToolCallResult)] == [{"city": "Paris"}]

    @STREAMING
    async def test_arguments_that_are_no_json_do_not_end_the_conversation(self, streaming):
        said = [Said(tool_calls=(("multiply", "six times seven"),)), Said(tool_calls=(("multiply", {"a": 6, "b": 7}),))]
        with FakeOpenAI(models=None, brain=script(*said, "It is 42.")) as server:
            answer, events = await run(
                FunctionAgent(tools=[MULTIPLY], llm=through(server), streaming=streaming), "What is 6 times 7?"
            )
        results = [event.tool_output for event in events if isinstance(event, ToolCallResult)]
        assert [result.is_error for result in results] == [True, False]
        assert answer.response.content == "It is 42."

    async def test_an_answer_that_breaks_off_is_an_error_and_no_answer(self, primary):
        primary.fail(cut_stream(5))
        with pytest.raises(errors.StreamInterrupted):
            await run(FunctionAgent(tools=[WEATHER], llm=through(primary)), "Tell me a story")

    async def test_a_cancelled_run_closes_its_connection(self, primary):
        stall = stall_stream(4)
        primary.fail(stall)
        handler = FunctionAgent(tools=[WEATHER], llm=through(primary)).run(user_msg="Tell me a story")
        await asyncio.to_thread(stall.reached.wait, 10)
        await handler.cancel_run()
        await asyncio.to_thread(primary.wait_gone)

    async def test_its_own_part_never_blocks_the_event_loop(self, primary):
        llm = through(primary)
        agent = FunctionAgent(tools=[WEATHER], llm=llm)
        with blockbuster_ctx("llamaindex_hf_gateway"):
            answer, _ = await run(agent, ASKED)
        assert sorted(answer.response.content) == sorted(BOTH)

    async def test_a_model_without_tools_is_refused_as_llamaindex_does(self, primary):
        llm = through(primary, is_function_calling_model=False)
        with pytest.raises(ValueError, match="LLM must be a FunctionCallingLLM"):
            await run(FunctionAgent(tools=[WEATHER], llm=llm), ASKED)


class TestOtherAgents:
    @STREAMING
    async def test_react_reasons_in_words(self, streaming):
        said = [
            'Thought: I need a tool.\nAction: multiply\nAction Input: {"a": 6, "b": 7}',
            "Thought: I can answer.\nAnswer: 42",
        ]
        with FakeOpenAI(models=None, brain=script(*said)) as server:
            agent = ReActAgent(
                tools=[MULTIPLY], llm=through(server, is_function_calling_model=False), streaming=streaming
            )
            answer, events = await run(agent, "What is 6 times 7?")
            assert "tools" not in server.requests[-1].json
        assert [event.tool_output.raw_output for event in events if isinstance(event, ToolCallResult)] == [42]
        assert answer.response.content == "42"

    async def test_agents_hand_over_to_each_other(self):
        said = [
            Said(tool_calls=(("handoff", {"to_agent": "Reckoner", "reason": "it is about numbers"}),)),
            Said(tool_calls=(("multiply", {"a": 6, "b": 7}),)),
            Said("It is 42."),
        ]
        with FakeOpenAI(models=None, brain=script(*said)) as server:
            llm = through(server)
            greeter = FunctionAgent(name="Greeter", description="Greets.", tools=[TIME], llm=llm)
            reckoner = FunctionAgent(name="Reckoner", description="Reckons.", tools=[multiply], llm=llm)
            workflow = AgentWorkflow(agents=[greeter, reckoner], root_agent="Greeter")
            answer, events = await run(workflow, "What is 6 times 7?")
        assert (answer.response.content, answer.current_agent_name) == ("It is 42.", "Reckoner")
        results = [event.tool_name for event in events if isinstance(event, ToolCallResult)]
        assert results == ["handoff", "multiply"]

    @pytest.mark.parametrize("able", [True, False])
    def test_a_workflow_of_tools_takes_the_agent_that_fits(self, able, primary):
        llm = through(primary, is_function_calling_model=able)
        workflow = AgentWorkflow.from_tools_or_functions([get_weather], llm=llm)
        assert [type(agent) for agent in workflow.agents.values()] == [FunctionAgent if able else ReActAgent]

    async def test_one_model_serves_agents_in_two_event_loops(self, primary):
        llm = through(primary)

        def once() -> str:
            agent = FunctionAgent(tools=[WEATHER], llm=llm)
            return asyncio.run(run(agent, ASKED))[0].response.content

        answers = [await asyncio.to_thread(once) for _ in range(2)]
        assert [sorted(answer) for answer in answers] == [sorted(BOTH)] * 2


@pytest.fixture
def index() -> "VectorStoreIndex":
    embedding = HFGatewayEmbedding(targets=["hash:256"])
    return VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embedding)


class TestEngines:
    @pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "accumulate"])
    async def test_a_query_is_answered_from_what_was_found(self, mode, index, primary):
        engine = index.as_query_engine(llm=through(primary), similarity_top_k=1, response_mode=mode)
        for answer in (engine.query("What does a for loop do?"), await engine.aquery("What does a for loop do?")):
            assert TEXTS[1] in str(answer)
            assert [node.get_content() for node in answer.source_nodes] == [TEXTS[1]]

    async def test_an_answer_to_a_query_can_be_streamed(self, index, primary):
        engine = index.as_query_engine(llm=through(primary), similarity_top_k=1, streaming=True)
        assert TEXTS[1] in "".join(engine.query("What does a for loop do?").response_gen)
        found = await engine.aquery("What does a for loop do?")
        assert TEXTS[1] in "".join([text async for text in found.async_response_gen()])

    async def test_the_model_answers_from_the_second_target_meanwhile(self, index, primary, backup):
        primary.close()
        engine = index.as_query_engine(llm=through(primary, backup), similarity_top_k=1)
        assert TEXTS[1] in str(engine.query("What does a for loop do?"))
        assert TEXTS[1] in str(await engine.aquery("What does a for loop do?"))

    @pytest.mark.parametrize("mode", ["context", "condense_plus_context", "condense_question", "simple"])
    async def test_a_chat_with_an_index_remembers(self, mode, index, primary):
        engine = index.as_chat_engine(chat_mode=mode, llm=through(primary), similarity_top_k=1)
        engine.chat("What does a for loop do?")
        await engine.achat("And a try statement?")
        streamed = engine.stream_chat("And yield?")
        assert "".join(streamed.response_gen).strip() == streamed.response.strip()
        later = await engine.astream_chat("And again?")
        assert "".join([text async for text in later.async_response_gen()])
        roles = [message.role.value for message in engine.chat_history]
        assert roles == ["user", "assistant"] * 4

    def test_a_simple_chat_has_its_system_prompt(self, primary):
        engine = SimpleChatEngine.from_defaults(llm=through(primary), system_prompt="Be brief.")
        assert engine.chat("foo").response == "I heard: foo"
        assert [message["role"] for message in primary.requests[-1].json["messages"]] == ["system", "user"]

    async def test_a_question_is_taken_apart(self, index):
        def brain(body: dict[str, Any]) -> Said:
            asked = body["messages"][-1]["content"]
            if "<Tools>" in asked:
                item = '{"sub_question": "What does a for loop do?", "tool_name": "book"}'
                return Said(f'```json\n{{"items": [{item}]}}\n```')
            return default_brain(body)

        with FakeOpenAI(models=None, brain=brain) as server:
            llm = through(server)
            book = QueryEngineTool.from_defaults(
                index.as_query_engine(llm=llm, similarity_top_k=1), name="book", description="About Python."
            )
            engine = SubQuestionQueryEngine.from_defaults(
                [book],
                llm=llm,
                question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
                response_synthesizer=get_response_synthesizer(llm=llm),
                verbose=False,
            )
            answers = [
                await asyncio.to_thread(engine.query, "Loops and errors?"),
                await engine.aquery("Loops and errors?"),
            ]
        for answer in answers:
            assert TEXTS[1] in str(answer)
            assert "Sub question: What does a for loop do?" in str(answer)

    def test_a_question_is_asked_in_steps(self, index):
        def brain(body: dict[str, Any]) -> Said:
            asked = body["messages"][-1]["content"]
            if "Knowledge source context" in asked:
                return Said("None" if "violet" in asked or TEXTS[1] in asked else "What does a for loop do?")
            return Said(TEXTS[1]) if re.search(r"for loop", asked) else default_brain(body)

        with FakeOpenAI(models=None, brain=brain) as server:
            llm = through(server)
            engine = MultiStepQueryEngine(
                index.as_query_engine(llm=llm, similarity_top_k=1),
                StepDecomposeQueryTransform(llm=llm),
                response_synthesizer=get_response_synthesizer(llm=llm),
                index_summary="About Python.",
            )
            answer = engine.query("What repeats?")
        assert TEXTS[1] in str(answer)
        assert [step[0] for step in answer.metadata["sub_qa"]] == ["What does a for loop do?"]

    async def test_a_router_chooses_by_a_structured_answer(self, index, monkeypatch):
        with FakeOpenAI(models=None) as server:
            llm = through(server)
            monkeypatch.setattr(Settings, "_llm", llm)
            book = QueryEngineTool.from_defaults(
                index.as_query_engine(llm=llm, similarity_top_k=1), name="book", description="About Python."
            )
            engine = RouterQueryEngine.from_defaults(
                [book], llm=llm, selector=PydanticMultiSelector.from_defaults(llm=llm)
            )
            assert TEXTS[1] in str(await engine.aquery("1: What does a for loop do?"))

    def test_a_tool_may_be_an_index(self, index, primary):
        llm = through(primary)
        book = QueryEngineTool.from_defaults(
            index.as_query_engine(llm=llm, similarity_top_k=1), name="book", description="About Python."
        )
        agent = FunctionAgent(tools=[book], llm=llm)
        answer, _ = asyncio.run(run(agent, "Look into the book: what does a for 'loop repeats'?"))
        assert TEXTS[1] in answer.response.content

    def test_messages_with_calls_can_be_stored_and_sent_again(self, primary):
        llm = through(primary)
        first = llm.chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg="get_weather in 'Paris'")
        stored = ChatMessage.model_validate_json(first.message.model_dump_json())
        assert [block for block in stored.blocks if isinstance(block, ToolCallBlock)] == first.message.blocks
        result = ChatMessage(
            role="tool", content="violet", additional_kwargs={"tool_call_id": stored.blocks[0].tool_call_id}
        )
        last = llm.chat([ChatMessage(content="get_weather in 'Paris'"), stored, result])
        assert last.message.content == "The tool says: violet"
