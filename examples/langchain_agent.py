"""A LangChain agent with two tools, of which the second needs what the first one found, and a typed result.

pip install "hf-gateway[langchain,torch]" langchain && python examples/langchain_agent.py

With HF_TOKEN set a hosted provider answers. Without it Ollama does, if it runs and `ollama pull llama3.1` was done.
Otherwise a model in this process, which is downloaded once (3 GB).
"""

from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, ToolMessage
from pydantic import BaseModel, Field

from langchain_hf_gateway import ChatHFGateway

ORDERS = {
    1041: {"item": "desk lamp", "kilograms": 1.5, "country": "Italy"},
    1042: {"item": "office chair", "kilograms": 14.0, "country": "Norway"},
}
EUROS_PER_KILOGRAM = {"Italy": 2.5, "Norway": 4.0}


def find_order(number: int) -> dict[str, object]:
    """Look up an order by its number: what was bought, how heavy it is, and where it goes."""
    return ORDERS.get(number, {"error": f"there is no order {number}"})


def shipping_cost(kilograms: float, country: str) -> str:
    """Return what it costs to ship a parcel of this weight to a country."""
    return f"{kilograms * EUROS_PER_KILOGRAM[country]:.2f} euros"


class Quote(BaseModel):
    """What it costs to ship an order."""

    order: int = Field(description="the order's number")
    item: str = Field(description="what was bought")
    euros: float = Field(description="what the shipping costs")


agent = create_agent(
    ChatHFGateway(
        model="meta-llama/Llama-3.1-8B-Instruct",
        targets=["hf", "ollama", "local:Qwen/Qwen2.5-1.5B-Instruct"],  # tried in this order
        temperature=0,
    ),
    tools=[find_order, shipping_cost],
    system_prompt="You are a shipping clerk. Look up an order before you ask for its shipping cost; never guess a number.",
    # As one more tool, which every target can be given; the tools and a JSON schema at once are beyond many servers.
    response_format=ToolStrategy(Quote),
)
state = agent.invoke({"messages": [{"role": "user", "content": "What does it cost to ship order 1042?"}]})

*steps, last, _ = state["messages"]  # `last` is the call that fills the class
for message in steps:
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            print(f"{call['name']}({call['args']})")
    elif isinstance(message, ToolMessage):
        print(f"  -> {message.text}")

quote = state["structured_response"]
print(f"\nOrder {quote.order}, {quote.item}: {quote.euros:.2f} euros\n\nThe last answer:")
for attempt in last.response_metadata["hf_gateway"]["attempts"]:
    print(" ", attempt["target"], attempt["outcome"], attempt["error"] or "")
