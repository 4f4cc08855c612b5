"""The registered description of reranking."""

from hf_gateway.settings.rerank import RerankSettings
from hf_gateway.tasks.base import Task
from hf_gateway.values.hub_model import ModelMetadata
from hf_gateway.values.hub_task import HubTask, OwnServer
from hf_gateway.values.task_facts import RERANK

PIPELINE_TAGS = frozenset({RERANK.price_task})


def ranks(metadata: ModelMetadata) -> bool:
    """Return whether a model ranks texts, by its pipeline tag."""
    return metadata.pipeline_tag in PIPELINE_TAGS


TASK = Task(
    hub=HubTask(
        facts=RERANK,
        title="rankings",
        is_for=ranks,
        precedence=20,
        provider_tags=PIPELINE_TAGS,
        engines=(("sentence_transformers",),),
        needs_safetensors=True,
        providers=frozenset(),
        own_servers=(OwnServer("text-embeddings-inference", "tei:<url>", "text-embeddings-inference"),),
    ),
    settings=RerankSettings,
    gateway="hf_gateway.tasks.rerank.gateway:RerankGateway",
    environment_prefix="RERANK",
    default_targets="local",
)
