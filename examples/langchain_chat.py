"""Chat through LangChain: streamed, as an instance of a class, and with word of who answered.

pip install "hf-gateway[langchain,torch]" && python examples/langchain_chat.py

With HF_TOKEN set a hosted provider answers. Without it Ollama does, if it runs and `ollama pull llama3.1` was done.
Otherwise a model in this process, which is downloaded once (3 GB).
"""

from langchain_core.messages import AIMessageChunk
from pydantic import BaseModel, Field

from langchain_hf_gateway import ChatHFGateway

model = ChatHFGateway(
    model="meta-llama/Llama-3.1-8B-Instruct",
    targets=["hf", "ollama", "local:Qwen/Qwen2.5-1.5B-Instruct"],  # tried in this order
    temperature=0,
)


class Appointment(BaseModel):
    """An appointment that a message is about."""

    day: str = Field(description="the day of the week")
    hour: int = Field(ge=0, le=23, description="the hour at which it begins")
    people: list[str] = Field(description="the names of those who come")


print("Streamed:")
answer = AIMessageChunk(content="")
for chunk in model.stream([("system", "You answer in one sentence."), ("human", "Why is the sky blue?")]):
    print(chunk.text, end="", flush=True)
    answer += chunk

print("\n\nAs an instance of a class:")
message = "Grace and Alan, shall we meet on Friday at two in the afternoon?"
print(repr(model.with_structured_output(Appointment).invoke(message)))

print("\nOf the first answer:")
print(" ", answer.usage_metadata)
facts = answer.response_metadata["hf_gateway"]
print("  served by", facts["served_by"], f"- first words after {facts['first_content_seconds']:.1f} s")
for attempt in facts["attempts"]:
    print("   ", attempt["target"], attempt["outcome"], attempt["error"] or "")
