"""Images by a model in this process."""

from hf_gateway.backends.base import ProbeReport
from hf_gateway.backends.image import ImageAbility
from hf_gateway.backends.local import LocalServer
from hf_gateway.engines import ImageEngine, open_image_engine, require_image_engine, sources
from hf_gateway.errors import GatewayError
from hf_gateway.runtime.effects import Compute, Effects
from hf_gateway.settings.image import ImageOptions
from hf_gateway.values.image import ImageAnswer, ImageRequest


class LocalImage(ImageAbility):
    """Makes images with diffusers, one at a time."""

    server: LocalServer

    def __init__(self, server: LocalServer, options: ImageOptions) -> None:
        super().__init__(server, options)
        self._engine: ImageEngine | None = None

    def draw(self, request: ImageRequest) -> Effects:
        """Make one image in this process."""
        self.check_count(request)
        return (yield Compute(lambda: self._compute(request), self.server.executor()))

    def probe(self) -> Effects:
        """Look for the model and diffusers, and ask the Hub about a missing model; loads and downloads nothing."""
        report: ProbeReport = yield from self.server.find_model(require_image_engine)
        return report

    def close(self) -> None:
        """Release the model and the thread."""
        self._engine = None
        super().close()

    def engine(self) -> ImageEngine:
        """Return the engine, loading the model first if needed."""
        with self.server.loading:
            if self._engine is None:
                target = self.target
                assert target.model is not None
                require_image_engine()  # before a model of gigabytes is downloaded in vain
                files = sources.fetch(target.model, target.revision, self.server.credential(), weights="pipeline")
                self._engine = open_image_engine(files, target.options, target.model)
            return self._engine

    def _compute(self, request: ImageRequest) -> ImageAnswer:
        try:
            return self.engine().draw(request)
        except GatewayError as error:
            error.target = error.target or self.target.label
            raise
