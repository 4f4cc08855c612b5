"""A LlamaIndex query engine, asked directly, and then as one of two tools of an agent.

pip install "hf-gateway[llamaindex,local]" && hf-gateway offline-model && python examples/llamaindex_agent.py

With HF_TOKEN set a hosted provider answers. Without it Ollama does, if it runs and `ollama pull llama3.1` was done.
Otherwise a model in this process, which is downloaded once (3 GB). The documents are embedded in this process anyway.
"""

import asyncio

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.tools import QueryEngineTool

from hf_gateway import ChatResult
from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM

HANDBOOK = [
    "Annual leave: everybody has 30 days a year. Days that are left lapse at the end of March.",
    "Meals: whoever travels for work is paid up to 40 euros a day for meals, against receipts.",
    "Trains: second class up to four hours, first class for longer journeys.",
    "Remote work: up to three days a week after the first month.",
]

Settings.embed_model = HFGatewayEmbedding(model_name="sentence-transformers/all-MiniLM-L6-v2", targets=["local"])
model = HFGatewayLLM(
    model="meta-llama/Llama-3.1-8B-Instruct",
    targets=["hf", "ollama", "local:Qwen/Qwen2.5-1.5B-Instruct"],  # tried in this order
    temperature=0,
)
Settings.llm = model


def multiply(a: float, b: float) -> float:
    """Multiply two numbers."""
    return a * b


async def main() -> None:
    answers: list[ChatResult] = []
    model.gateway.observe(answers.append)  # every answer, with its tokens and who gave it

    index = VectorStoreIndex.from_documents([Document(text=text) for text in HANDBOOK])
    engine = index.as_query_engine(similarity_top_k=2)
    print("Asked directly:", await engine.aquery("How many days of leave do I have?"))

    handbook = QueryEngineTool.from_defaults(
        engine, name="handbook", description="Answers questions about the company's rules: leave, travel, remote work."
    )
    agent = FunctionAgent(
        tools=[handbook, multiply],
        system_prompt="You help the staff. Look rules up in the handbook, and calculate with the tools.",
    )
    run = agent.run("I travel for three days. How much may I spend on meals altogether?")
    async for event in run.stream_events():
        if isinstance(event, ToolCallResult):
            print(f"Tool: {event.tool_name}({event.tool_kwargs}) -> {event.tool_output.content}")
    print("The agent:", await run)

    tokens = sum(answer.usage.total_tokens or 0 for answer in answers)
    print(f"\n{len(answers)} answers with {tokens} tokens; of the last one:")
    for attempt in answers[-1].attempts:
        print(" ", attempt.target, attempt.outcome, attempt.error or "")


asyncio.run(main())
