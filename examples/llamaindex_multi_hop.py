"""A question that no document answers alone: LlamaIndex finds what to ask next, and which index to ask.

pip install "hf-gateway[llamaindex,torch]" && python examples/llamaindex_multi_hop.py

With HF_TOKEN set a hosted provider answers. Without it Ollama does, if it runs and `ollama pull llama3.1` was done.
Otherwise a model in this process, which is downloaded once (3 GB).
"""

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.indices.query.query_transform import StepDecomposeQueryTransform
from llama_index.core.query_engine import MultiStepQueryEngine, RouterQueryEngine
from llama_index.core.tools import QueryEngineTool

from hf_gateway import ChatResult
from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM

FERRIES = [
    "The ferry Aurora was built in Lindvik and carries 40 cars.",
    "The ferry Borealis was built in Storhamn and carries 120 cars.",
]
TOWNS = [
    "Lindvik has 3,000 inhabitants, and Ingrid Solheim is its mayor.",
    "Storhamn has 90,000 inhabitants, and Per Dahl is its mayor.",
]
QUESTION = "Who is the mayor of the town where the ferry Aurora was built?"

# Vectors made of the words alone, without any model: they will do for four sentences, and do not know what words mean.
Settings.embed_model = HFGatewayEmbedding(targets=["hash"])
model = HFGatewayLLM(
    model="meta-llama/Llama-3.1-8B-Instruct",
    targets=["hf", "ollama", "local:Qwen/Qwen2.5-1.5B-Instruct"],  # tried in this order
    temperature=0,
)
Settings.llm = model
answers: list[ChatResult] = []
model.gateway.observe(answers.append)  # every answer, with its tokens and who gave it


def tool(name: str, texts: list[str], description: str) -> QueryEngineTool:
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts])
    return QueryEngineTool.from_defaults(index.as_query_engine(similarity_top_k=1), name=name, description=description)


# One step asks one index, which the model chooses, and sees the answers of the steps before. For parts that do not need
# each other, such as in a comparison, there is SubQuestionQueryEngine; give it question_gen=LLMQuestionGenerator.from_defaults().
router = RouterQueryEngine.from_defaults(
    [
        tool("ferries", FERRIES, "Where each ferry was built, and how much it carries."),
        tool("towns", TOWNS, "How many inhabitants each town has, and who its mayor is."),
    ]
)
engine = MultiStepQueryEngine(
    router,
    StepDecomposeQueryTransform(),
    num_steps=3,
    index_summary="Where ferries were built; the inhabitants and the mayors of towns",
)
response = engine.query(QUESTION)

for number, (question, answer) in enumerate((response.metadata or {})["sub_qa"], 1):
    print(f"{number}. {question}\n   {answer}\n   from: {answer.source_nodes[0].text}")
print(f"\n{QUESTION}\n{response}")

print(
    f"\n{len(answers)} answers with {sum(answer.usage.total_tokens or 0 for answer in answers)} tokens; of the last one:"
)
for attempt in answers[-1].attempts:
    print(" ", attempt.target, attempt.outcome, attempt.error or "")
