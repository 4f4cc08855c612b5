"""The registered description of classification."""

from hf_gateway.settings.classification import ClassifySettings
from hf_gateway.tasks.base import ForBrowsers, Task
from hf_gateway.values.hub_model import ModelMetadata
from hf_gateway.values.hub_task import HubTask, OwnServer
from hf_gateway.values.task_facts import CLASSIFICATION
from hf_gateway.wire.hf_classification import PROVIDERS

PIPELINE_TAGS = frozenset({"text-classification", "zero-shot-classification", "image-classification"})


def classifies(metadata: ModelMetadata) -> bool:
    """Return whether a model returns labels, by its pipeline tag."""
    return metadata.pipeline_tag in PIPELINE_TAGS


TASK = Task(
    hub=HubTask(
        facts=CLASSIFICATION,
        title="labels",
        is_for=classifies,
        precedence=30,
        provider_tags=PIPELINE_TAGS,
        engines=(("transformers", "torch"),),
        needs_safetensors=True,
        providers=frozenset(PROVIDERS),
        own_servers=(OwnServer("text-embeddings-inference", "tei:<url>", "text-embeddings-inference"),),
    ),
    settings=ClassifySettings,
    gateway="hf_gateway.tasks.classification.gateway:ClassifyGateway",
    environment_prefix="CLASSIFY",
    default_targets="local",
    for_browsers=ForBrowsers("hf_gateway.engines.browser_files:browser_label_files", "classify"),
)
