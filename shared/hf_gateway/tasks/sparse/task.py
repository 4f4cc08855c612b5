"""The registered description of sparse embeddings."""

from hf_gateway.settings.sparse import SparseSettings
from hf_gateway.tasks.base import Task
from hf_gateway.values.hub_model import ModelMetadata
from hf_gateway.values.hub_task import HubTask, OwnServer
from hf_gateway.values.task_facts import SPARSE

TAGS = frozenset({"sparse-encoder", "splade"})
"""The Hub's tags of models for sparse vectors; their pipeline tag is that of dense embeddings."""


def embeds_sparsely(metadata: ModelMetadata) -> bool:
    """Return whether a model is for sparse embeddings, by its tags."""
    return not TAGS.isdisjoint(metadata.tags)


TASK = Task(
    hub=HubTask(
        facts=SPARSE,
        title="sparse embeddings",
        is_for=embeds_sparsely,
        precedence=-10,  # before embeddings, for which such a model would be taken by its pipeline tag
        provider_tags=frozenset(),
        engines=(("sentence_transformers",),),
        needs_safetensors=True,
        loads_folders=True,
        providers=frozenset(),
        own_servers=(OwnServer("text-embeddings-inference", "tei:<url>", "text-embeddings-inference"),),
    ),
    settings=SparseSettings,
    gateway="hf_gateway.tasks.sparse.gateway:SparseGateway",
    environment_prefix="SPARSE",
    default_targets="local",
)
