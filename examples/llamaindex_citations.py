"""Answers with citations in LlamaIndex: the numbers in the answer are those of the sources below it.

pip install "hf-gateway[llamaindex,torch]" && python examples/llamaindex_citations.py

With HF_TOKEN set a hosted provider answers. Without it Ollama does, if it runs and `ollama pull llama3.1` was done.
Otherwise a model in this process, which is downloaded once (3 GB).
"""

import re

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.query_engine import CitationQueryEngine

from hf_gateway import ChatResult
from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM

DOCUMENTS = {
    "keeper's log": "The lighthouse was lit for the first time in 1874. Its lamp burned whale oil until 1911.",
    "engineer's report": "The lighthouse has had an electric lamp since 1911, and nobody has lived in it since 1983.",
    "visitor's guide": "The tower is open from May to September. 214 steps lead to the top.",
}
QUESTION = "When was the lighthouse lit for the first time, and since when has it had an electric lamp?"

# Vectors made of the words alone, without any model: they will do for three notes, and do not know what words mean.
Settings.embed_model = HFGatewayEmbedding(targets=["hash"])
model = HFGatewayLLM(
    model="meta-llama/Llama-3.1-8B-Instruct",
    targets=["hf", "ollama", "local:Qwen/Qwen2.5-1.5B-Instruct"],  # tried in this order
    temperature=0,
)
Settings.llm = model
answers: list[ChatResult] = []
model.gateway.observe(answers.append)  # every answer, with its tokens and who gave it

index = VectorStoreIndex.from_documents(
    [Document(text=text, metadata={"from": name}) for name, text in DOCUMENTS.items()]
)
engine = CitationQueryEngine.from_args(index, similarity_top_k=2, citation_chunk_size=128)
response = engine.query(QUESTION)

print(QUESTION)
print(f"  {response}\n")
for number in sorted({int(cited) for cited in re.findall(r"\[(\d+)\]", str(response))}):
    if number <= len(response.source_nodes):
        node = response.source_nodes[number - 1]
        text = node.text.partition("\n")[2].strip()  # without "Source 1:", the line the engine put before it
        print(f"[{number}] {node.metadata['from']}: {text}")
    else:
        print(f"[{number}] is none of the sources: the model made it up")

print(
    f"\n{len(answers)} answers with {sum(answer.usage.total_tokens or 0 for answer in answers)} tokens; of the last one:"
)
for attempt in answers[-1].attempts:
    print(" ", attempt.target, attempt.outcome, attempt.error or "")
