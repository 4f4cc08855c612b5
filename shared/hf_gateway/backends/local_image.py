"""Images by a model in this process."""

from hf_gateway.backends.image import ImageAbility
from hf_gateway.backends.local import LocalAbility
from hf_gateway.engines import open_image_engine, require_image_engine, sources
from hf_gateway.engines.protocols import ImageEngine
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.image import ImageRequest


class LocalImage(LocalAbility[ImageEngine], ImageAbility):
    """Makes images with diffusers, one at a time."""

    def draw(self, request: ImageRequest) -> Effects:
        """Make one image in this process."""
        self.check_count(request)
        return (yield from self.compute(lambda engine: engine.draw(request)))

    def require(self) -> None:
        """Raise EngineMissing if diffusers is not installed."""
        require_image_engine()

    def open(self, files: sources.ModelFiles) -> ImageEngine:
        """Load the pipeline."""
        return open_image_engine(files, self.target.options, self.target.model)

    def find_model(self) -> sources.ModelFiles | None:
        """Return None: which files a pipeline needs is known to `fetch_model` only, which downloads what is missing."""
        return None

    def fetch_model(self) -> sources.ModelFiles:
        """Download the pipeline's files, as far as they are missing."""
        assert self.target.model is not None
        return sources.fetch(self.target.model, self.target.revision, self.server.credential(), weights="pipeline")
