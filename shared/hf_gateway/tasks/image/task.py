"""The registered description of text-to-image."""

from hf_gateway.settings.image import ImageSettings
from hf_gateway.tasks.base import Task
from hf_gateway.values.hub_model import ModelMetadata
from hf_gateway.values.hub_task import HubTask
from hf_gateway.values.task_facts import IMAGE
from hf_gateway.wire.provider_images import FORMS

PIPELINE_TAGS = frozenset({IMAGE.price_task})


def draws(metadata: ModelMetadata) -> bool:
    """Return whether a model makes images from texts, by its pipeline tag."""
    return metadata.pipeline_tag in PIPELINE_TAGS


TASK = Task(
    hub=HubTask(
        facts=IMAGE,
        title="images",
        is_for=draws,
        precedence=40,
        provider_tags=PIPELINE_TAGS,
        engines=(("diffusers", "transformers", "torch"),),
        needs_safetensors=True,
        loads_folders=True,
        extra="images",
        providers=frozenset(FORMS),
    ),
    settings=ImageSettings,
    gateway="hf_gateway.tasks.image.gateway:ImageGateway",
    environment_prefix="IMAGE",
    default_targets="hf",
)
