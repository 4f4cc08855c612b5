"""The registered description of chat."""

from hf_gateway.hub.needs import generates_text
from hf_gateway.settings.chat import ChatSettings
from hf_gateway.tasks.base import FirstChain, Task
from hf_gateway.values.hub_model import ModelMetadata
from hf_gateway.values.hub_task import HubTask, OwnServer
from hf_gateway.values.task_facts import CHAT

PIPELINE_TAGS = frozenset({"text-generation", "image-text-to-text"})


def chats(metadata: ModelMetadata) -> bool:
    """Return whether a model is for chat, by its pipeline tag or, without one, since it generates text."""
    if metadata.pipeline_tag is None:
        return generates_text(metadata)
    return metadata.pipeline_tag in PIPELINE_TAGS


TASK = Task(
    hub=HubTask(
        facts=CHAT,
        title="chat",
        is_for=chats,
        precedence=10,
        in_ollama=True,
        capability="completion",
        provider_tags=frozenset({"conversational", "text-generation"}),
        engines=(("transformers", "torch"),),
        needs_safetensors=True,
        in_catalogue=True,
        generates_text=True,
        own_servers=(OwnServer("text-generation-inference", "openai:<url>", "vLLM, TGI or the like"),),
    ),
    settings=ChatSettings,
    gateway="hf_gateway.tasks.chat.gateway:ChatGateway",
    environment_prefix="CHAT",
    default_targets="hf",
    model_variables=("HF_MODEL_ID",),
    first_chain=FirstChain(
        name="talk",
        purpose="chat",
        model="meta-llama/Llama-3.1-8B-Instruct",
        setting="temperature = 0.2",
        use='ChatHFGateway.from_config("talk") of langchain_hf_gateway',
    ),
)
