"""The registered description of embeddings."""

from hf_gateway.settings.embedding import EmbedSettings
from hf_gateway.tasks.base import FirstChain, ForBrowsers, Task
from hf_gateway.values.hub_model import ModelMetadata
from hf_gateway.values.hub_task import HubTask, OwnServer
from hf_gateway.values.task_facts import EMBEDDING
from hf_gateway.wire.hf_inference import EMBEDDING_PROVIDERS

SIMILARITY = "sentence-similarity"
_EXAMPLE = "sentence-transformers/all-MiniLM-L6-v2"
PIPELINE_TAGS = frozenset({"feature-extraction", SIMILARITY})


def embeds(metadata: ModelMetadata) -> bool:
    """Return whether a model is for embeddings, by its pipeline tag or as one of sentence-transformers."""
    return metadata.pipeline_tag in PIPELINE_TAGS or (
        metadata.library_name == "sentence-transformers" and SIMILARITY in metadata.tags
    )


TASK = Task(
    hub=HubTask(
        facts=EMBEDDING,
        title="embeddings",
        is_for=embeds,
        precedence=0,
        in_ollama=True,
        capability="embedding",
        info_type="embedding",
        name_parts=("embed", "minilm", "bge", "e5-", "gte-", "mpnet", "arctic"),
        provider_tags=PIPELINE_TAGS,
        engines=(("sentence_transformers",), ("tokenizers", "openvino"), ("tokenizers", "onnxruntime")),
        loads_folders=True,
        providers=frozenset(EMBEDDING_PROVIDERS),
        own_servers=(OwnServer("text-embeddings-inference", "tei:<url>", "text-embeddings-inference"),),
    ),
    settings=EmbedSettings,
    gateway="hf_gateway.tasks.embedding.gateway:EmbeddingGateway",
    environment_prefix="EMBED",
    default_targets="local",
    implied=True,
    for_browsers=ForBrowsers("hf_gateway.engines.browser_files:browser_files", "embed"),
    example_model=_EXAMPLE,
    first_chain=FirstChain(
        name="docs",
        purpose="embeddings, for search and retrieval",
        model=_EXAMPLE,
        setting='query_prompt = "query: "   # for models that were trained with a prompt, such as e5',
        use='HFGatewayEmbeddings.from_config("docs") of langchain_hf_gateway',
    ),
)
