"""A question that no document answers alone, in LangChain: plan the steps, look each one up, then combine.

pip install "hf-gateway[langchain,torch]" && python examples/langchain_multi_hop.py

With HF_TOKEN set a hosted provider answers. Without it Ollama does, if it runs and `ollama pull llama3.1` was done.
Otherwise a model in this process, which is downloaded once (3 GB).
"""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel, Field

from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings

FACTS = [
    "The Kestrel Bridge was designed by Marta Lund.",
    "The Heron Bridge was designed by Olaf Brandt.",
    "Marta Lund was born in Aldmoor.",
    "Olaf Brandt was born in Weston.",
    "The river Tarn flows through Aldmoor.",
    "The river Ouse flows through Weston.",
]
QUESTION = "Which river flows through the town where the designer of the Kestrel Bridge was born?"


class Plan(BaseModel):
    """Short questions, in the order in which they have to be looked up."""

    questions: list[str] = Field(description="each asks for one fact; #1 stands for the answer to the first, and so on")


model = ChatHFGateway(
    model="meta-llama/Llama-3.1-8B-Instruct",
    targets=["hf", "ollama", "local:Qwen/Qwen2.5-1.5B-Instruct"],  # tried in this order
    temperature=0,
)
# Vectors made of the words alone, without any model: they will do for six sentences, and do not know what words mean.
store = InMemoryVectorStore.from_texts(FACTS, HFGatewayEmbeddings(targets=["hash"]))

plan = ChatPromptTemplate.from_template(
    "Split this question into questions that can be looked up one after the other, one fact each. Where a question needs "
    "the answer to an earlier one, write #1, #2, … in its place.\n\n"
    "For example, 'How old is the mayor of the capital of Peru?' becomes:\n"
    "What is the capital of Peru? / Who is the mayor of #1? / How old is #2?\n\nQuestion: {question}"
) | model.with_structured_output(Plan)
step = (
    ChatPromptTemplate.from_template(
        "Facts:\n{facts}\n\nQuestion: {question}\nAnswer by these facts alone, with nothing but the name or number."
    )
    | model
    | StrOutputParser()
)
combine = (
    ChatPromptTemplate.from_template("Known:\n{known}\n\nBy this alone, answer in one sentence: {question}") | model
)

found: list[str] = []
known: list[str] = []
for planned in plan.invoke({"question": QUESTION}).questions:
    question = planned
    for number, earlier in enumerate(found, 1):
        question = question.replace(f"#{number}", earlier)
    facts = [document.page_content for document in store.similarity_search(question, k=2)]
    found.append(step.invoke({"facts": "\n".join(facts), "question": question}).strip().rstrip("."))
    known.append(f"{question} {found[-1]}")
    print(f"{len(found)}. {question} {found[-1]}")
    print("   from:", " / ".join(facts))

answer = combine.invoke({"known": "\n".join(known), "question": QUESTION})
print(f"\n{QUESTION}\n{answer.text}")
print("\nThe last answer:")
for attempt in answer.response_metadata["hf_gateway"]["attempts"]:
    print(" ", attempt["target"], attempt["outcome"], attempt["error"] or "")
