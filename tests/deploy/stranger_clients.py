"""What a stranger writes against a server, run in the environment that they installed: `stranger_clients.py URL EMBEDDING CHAT`.

The key, where the server wants one, is GATEWAY_KEY. Prints what each class answered, as JSON. The other server is `openai:` for
chat, and `tei:` for embeddings, as our classes ask servers; OpenAI's own class of LangChain asks it as OpenAI.
"""

import json
import math
import os
import sys

from langchain_openai import OpenAIEmbeddings

from hf_gateway import Target
from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings
from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM

url, embedding, chat = sys.argv[1:]
key = "env:GATEWAY_KEY" if "GATEWAY_KEY" in os.environ else None
embed_at = Target("tei", url=url, credential=key)
chat_at = Target("openai", url=f"{url}/v1", credential=key)

embeddings = HFGatewayEmbeddings(model=embedding, targets=[embed_at])
documents = embeddings.embed_documents(["Ships sail.", "Cats sleep."])
query = HFGatewayEmbedding(model_name=embedding, targets=[embed_at]).get_text_embedding("Ships sail.")
openai = OpenAIEmbeddings(
    model=embedding,
    base_url=f"{url}/v1",
    api_key=os.environ.get("GATEWAY_KEY", "none"),
    check_embedding_ctx_length=False,
)
first = openai.embed_documents(["Ships sail."])[0]
model = ChatHFGateway(model=chat, targets=[chat_at])
json.dump(
    {
        "dimension": len(documents[0]),
        "same over every door": all(math.dist(documents[0], each) < 1e-5 for each in (query, first)),
        "another text is another vector": math.dist(documents[0], documents[1]) > 0.1,
        "langchain": model.invoke("Hello").text,
        "langchain, streamed": "".join(piece.text for piece in model.stream("Hello")),
        "llamaindex": str(HFGatewayLLM(model=chat, targets=[chat_at]).complete("Hello")),
    },
    sys.stdout,
)
