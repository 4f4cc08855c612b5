"""HFGatewayImageTool: a tool with which LangChain's agents make images, over a hf-gateway chain."""

import base64
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages.content import create_image_block, create_text_block
from langchain_core.tools import BaseTool, ToolException
from langchain_core.tools.base import ArgsSchema
from pydantic import Field, PrivateAttr

from hf_gateway.errors import GatewayError
from hf_gateway.framework_base import ImageMixin, build_gateway
from hf_gateway.settings.image import TOOL_DESCRIPTION, TOOL_NAME, ImagePrompt, ImageSettings
from langchain_hf_gateway.errors import as_model_errors

if TYPE_CHECKING:
    from hf_gateway.tasks.image.gateway import ImageGateway
    from hf_gateway.values.image import ImageResult


_tool_classes: dict[type[GatewayError], type[GatewayError]] = {}


def as_tool_error(error: GatewayError) -> GatewayError:
    """Return the same error as a class that is also `ToolException`."""
    kind = type(error)
    if kind not in _tool_classes:
        described = {
            "__doc__": kind.__doc__,
            "__module__": kind.__module__,
            # Its class is made when it is first needed, which another process has not done.
            "__reduce__": lambda self: (as_tool_error, (_copy_as(kind, self),)),
        }
        _tool_classes[kind] = type(kind.__name__, (kind, ToolException), described)
    return _copy_as(_tool_classes[kind], error)


def _copy_as(kind: type[GatewayError], error: GatewayError) -> GatewayError:
    made = kind.__new__(kind, *error.args)
    Exception.__init__(made, *error.args)
    made.__dict__.update(error.__dict__)
    return made


@contextlib.contextmanager
def _as_tool_errors() -> Iterator[None]:
    """Re-raise hf-gateway's errors as LangChain's, which are `ToolException`s too, so that `handle_tool_error` applies."""
    try:
        with as_model_errors():
            yield
    except GatewayError as error:
        raise as_tool_error(error) from error.__cause__


class HFGatewayImageTool(ImageMixin, ImageSettings, BaseTool):
    """A tool that makes an image from a text, with the first of its targets that can serve.

    Setup:
        ```bash
        pip install "hf-gateway[langchain]"  # for models in this process "hf-gateway[langchain,images]"
        ```

    Example:
        ```python
        from langchain_hf_gateway import HFGatewayImageTool

        tool = HFGatewayImageTool(
            model="stabilityai/stable-diffusion-xl-base-1.0", targets=["hf", "local"], width=1024, height=1024
        )
        print(tool.name, list(tool.args))
        ```

    Args:
        model: Hub id of the model, or a folder.
        targets: where to go, in this order, such as "hf", "openai:http://localhost:8000" or "local".
        revision: commit, branch or tag of the model, for targets that load it themselves.
        api_key: a Hugging Face token, sent to Hugging Face alone; or the key of the one server of your own in `targets`.
        timeout: seconds for one request over all targets and retries.
        attempt_timeout: seconds for one image of a target.
        connect_timeout: seconds to connect.
        max_retries: how often one target is asked again after a failure that may pass.
        config: the config file whose `[keys]` hold; `from_config` fills it in.
        chain: what the chain is called in ledgers and metrics; `from_config` fills it in.
        negative_prompt: what images are not to show, unless the agent names it.
        width: width of the images in pixels.
        height: height of the images in pixels.
        steps: steps of denoising.
        guidance_scale: how closely images follow the prompt.
        truncate: truncate a prompt that is longer than a model in this process reads.
        max_image_bytes: maximum size of one image.
        next_on_content_filter: whether the next target is asked when a content policy refuses.
        name: the tool's name, for the agent's model.
        description: what the tool does, for the agent's model.
        show_images: whether the images are in the message for the agent's model, which has to be able to see.

    The message for the agent's model says what was made; the `ImageResult`, with the images, is its artifact; a message
    that is dumped, as for a history, has a description of it without the images' bytes. The agent chooses the prompts alone:
    sizes and steps, which cost money, are arguments of the tool.

    Errors are hf-gateway's own, the matching subclass of `langchain_core.exceptions.ModelError`, and `ToolException`s: with
    `handle_tool_error=True` the agent's model receives them, a refusal by a content policy among them.
    """

    name: str = TOOL_NAME
    """The tool's name, for the agent's model."""
    description: str = TOOL_DESCRIPTION
    """What the tool does, for the agent's model."""
    args_schema: ArgsSchema | None = ImagePrompt
    """What the agent's model may choose."""
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    """The images are the artifact of the message."""
    show_images: bool = Field(default=False)
    """Whether the images are in the message for the agent's model, which has to be able to see."""

    _gateway: "ImageGateway" = PrivateAttr()

    def model_post_init(self, _context: Any, /) -> None:
        """Build the chain, so that invalid settings fail here; nothing is loaded or connected to."""
        self._adopt(build_gateway(self, self.model))

    def _run(self, prompt: str, negative_prompt: str | None = None) -> tuple[Any, "ImageResult"]:
        with _as_tool_errors():
            result = self._gateway.generate(prompt, negative_prompt=negative_prompt)
        return self._content(result), result

    async def _arun(self, prompt: str, negative_prompt: str | None = None) -> tuple[Any, "ImageResult"]:
        with _as_tool_errors():
            result = await self._gateway.agenerate(prompt, negative_prompt=negative_prompt)
        return self._content(result), result

    def _content(self, result: "ImageResult") -> Any:
        said = self._summary(result)
        if not self.show_images:
            return said
        blocks = [
            create_image_block(base64=base64.b64encode(image.data).decode(), mime_type=image.mime) for image in result
        ]
        return [create_text_block(said), *blocks]
