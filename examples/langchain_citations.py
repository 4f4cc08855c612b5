"""Answers with citations in LangChain: every sentence names its passage and quotes it, and the quotes are checked.

pip install "hf-gateway[langchain,local]" && hf-gateway offline-model && python examples/langchain_citations.py

With HF_TOKEN set a hosted provider answers. Without it Ollama does, if it runs and `ollama pull llama3.1` was done.
Otherwise a model in this process, which is downloaded once (3 GB). The passages are embedded in this process anyway.
"""

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel, Field

from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings

PASSAGES = [
    "A honey bee that has found flowers dances on the comb. The angle of her run gives the direction, measured from the sun.",
    "The duration of the waggle gives the distance: one second of waggling stands for about one kilometre.",
    "Bees keep their brood at 35 degrees. When it gets cold they shiver with their flight muscles.",
    "A queen lays up to 2,000 eggs a day in early summer.",
]
QUESTION = "How do bees tell each other where flowers are?"


class Statement(BaseModel):
    """One sentence of the answer, and what supports it."""

    sentence: str
    passage: int = Field(description="the number of the passage that says so")
    quote: str = Field(description="the words of that passage that say so, copied exactly")


class Answer(BaseModel):
    """An answer that is supported by the passages."""

    statements: list[Statement]


def squeezed(text: str) -> str:
    return " ".join(text.casefold().split())


def supported(statement: Statement, passages: list[str]) -> bool:
    """Return whether the passage exists and contains the quoted words."""
    if not 1 <= statement.passage <= len(passages) or not statement.quote.strip():
        return False
    return squeezed(statement.quote) in squeezed(passages[statement.passage - 1])


embeddings = HFGatewayEmbeddings(model="sentence-transformers/all-MiniLM-L6-v2", targets=["local"])
store = InMemoryVectorStore.from_texts(PASSAGES, embeddings)
model = ChatHFGateway(
    model="meta-llama/Llama-3.1-8B-Instruct",
    targets=["hf", "ollama", "local:Qwen/Qwen2.5-1.5B-Instruct"],  # tried in this order
    temperature=0,
)
prompt = ChatPromptTemplate.from_template("Passages:\n{passages}\n\nAnswer by these passages alone: {question}")

passages = [document.page_content for document in store.similarity_search(QUESTION, k=3)]
numbered = "\n".join(f"[{number}] {passage}" for number, passage in enumerate(passages, 1))
# include_raw keeps the message beside the instance, for the facts at the end.
answered = (prompt | model.with_structured_output(Answer, include_raw=True)).invoke(
    {"passages": numbered, "question": QUESTION}
)
if answered["parsed"] is None:
    raise SystemExit(f"the model gave no such answer: {answered['parsing_error'] or answered['raw'].text}")

print(QUESTION)
for statement in answered["parsed"].statements:
    if supported(statement, passages):
        print(f"  {statement.sentence} [{statement.passage}]")
    else:
        print(f"  (refused, since passage {statement.passage} has no such words: {statement.sentence!r})")
print(f"\n{numbered}\n")
for attempt in answered["raw"].response_metadata["hf_gateway"]["attempts"]:
    print(attempt["target"], attempt["outcome"], attempt["error"] or "")
