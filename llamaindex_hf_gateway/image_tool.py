"""HFGatewayImageTool: a tool with which LlamaIndex's agents make images, over a hf-gateway chain."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.tools.types import AsyncBaseTool, ToolMetadata, ToolOutput
from pydantic import Field, PrivateAttr

from hf_gateway.framework_base import ImageMixin, build_gateway
from hf_gateway.settings.config_file import read_chain
from hf_gateway.settings.image import TOOL_DESCRIPTION, TOOL_NAME, ImageArguments, ImagePrompt, ImageSettings

if TYPE_CHECKING:
    from hf_gateway.tasks.image.gateway import ImageGateway
    from hf_gateway.values.image import ImageResult


class ImageToolArguments(ImageArguments, total=False):
    """Keyword arguments of `HFGatewayImageTool`: those of a chain for images, and the tool's own."""

    tool_name: str
    tool_description: str
    return_direct: bool
    show_images: bool


class HFGatewayImageTool(ImageMixin, ImageSettings, AsyncBaseTool):  # type: ignore[misc]
    """A tool that makes an image from a text, with the first of its targets that can serve.

    `pip install "hf-gateway[llamaindex]"`, for models in this process `"hf-gateway[llamaindex,images]"`

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
        tool_name: the tool's name, for the agent's model.
        tool_description: what the tool does, for the agent's model.
        return_direct: whether the agent ends with this tool's output.
        show_images: whether the output has an `ImageBlock` for each image; False for an agent's model that cannot see.

    Examples:
        ```python
        from llamaindex_hf_gateway import HFGatewayImageTool

        tool = HFGatewayImageTool(
            model="stabilityai/stable-diffusion-xl-base-1.0", targets=["hf", "local"], width=1024, height=1024
        )
        print(tool.metadata.name)
        ```

    The output's blocks are a text that says what was made, and the images; `raw_output` is the `ImageResult`. The agent chooses
    the prompts alone: sizes and steps, which cost money, are arguments of the tool. Errors are hf-gateway's own; LlamaIndex's
    agents tell them to their model.
    """

    tool_name: str = Field(default=TOOL_NAME, description="The tool's name, for the agent's model.")
    tool_description: str = Field(default=TOOL_DESCRIPTION, description="What the tool does, for the agent's model.")
    return_direct: bool = Field(default=False, description="Whether the agent ends with this tool's output.")
    show_images: bool = Field(
        default=True,
        description="Whether the output has an `ImageBlock` for each image; False for an agent's model that cannot see.",
    )

    _gateway: "ImageGateway" = PrivateAttr()

    def model_post_init(self, _context: Any, /) -> None:
        """Build the chain, so that invalid settings fail here; nothing is loaded or connected to."""
        self._adopt(build_gateway(self, self.model))

    @classmethod
    def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[ImageToolArguments]) -> Self:
        """Read `[chains.<name>]` of hf-gateway.toml.

        Args:
            name: of the chain.
            path: the file; by default the one in force.
            changes: arguments that override the file's, and the tool's own.

        Raises:
            ConfigError: a chain that the file does not have, or settings that make no sense, with file and line.
        """
        return cls(**{**read_chain(name, ImageSettings, path), **changes})

    @property
    def metadata(self) -> ToolMetadata:
        """Name, description and arguments, for the agent's model."""
        return ToolMetadata(self.tool_description, self.tool_name, ImagePrompt, self.return_direct)

    def call(self, prompt: str, negative_prompt: str | None = None) -> ToolOutput:
        """Make an image.

        Args:
            prompt: what the image shows.
            negative_prompt: what it is not to show.
        """
        result = self._gateway.generate(prompt, negative_prompt=negative_prompt)
        return self._output(prompt, negative_prompt, result)

    async def acall(self, prompt: str, negative_prompt: str | None = None) -> ToolOutput:
        """Like `call`, without blocking the event loop.

        Args:
            prompt: what the image shows.
            negative_prompt: what it is not to show.
        """
        result = await self._gateway.agenerate(prompt, negative_prompt=negative_prompt)
        return self._output(prompt, negative_prompt, result)

    def _output(self, prompt: str, negative_prompt: str | None, result: "ImageResult") -> ToolOutput:
        shown = [ImageBlock(image=image.data, image_mimetype=image.mime) for image in result if self.show_images]
        return ToolOutput(
            tool_name=self.tool_name,
            blocks=[TextBlock(text=self._summary(result)), *shown],
            raw_input={"prompt": prompt, "negative_prompt": negative_prompt},
            raw_output=result,
        )
