"""Base of all abilities that classify."""

from hf_gateway.backends.base import Server
from hf_gateway.backends.batching import BatchingAbility
from hf_gateway.errors import BatchTooLarge, Unsupported
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.classification import ClassifyOptions
from hf_gateway.values.labels import ClassifyRequest


class ClassifyAbility(BatchingAbility):
    """Labels texts and images. A kind's class implements `classify` and `probe`."""

    options: ClassifyOptions

    def __init__(self, server: Server, options: ClassifyOptions) -> None:
        super().__init__(server, options)
        self.options = options

    def classify(self, request: ClassifyRequest) -> Effects:
        """Label each input of a batch; returns a `ClassifyAnswer`. Raises GatewayError."""
        raise NotImplementedError

    def check_one(self, request: ClassifyRequest) -> None:
        """Raise BatchTooLarge for more than one input, for a server that takes one in a request."""
        if len(request.inputs) > 1:
            raise BatchTooLarge("takes one input at once", max_texts=1)

    def refuse_images(self, request: ClassifyRequest) -> None:
        """Raise Unsupported for images, which this kind does not accept."""
        if request.images:
            raise Unsupported("does not accept images", target=self.target.label)

    def refuse_pairs(self, request: ClassifyRequest) -> None:
        """Raise Unsupported for pairs of texts, for which this kind's API has no form."""
        if request.seconds:
            raise Unsupported(
                "does not label pairs of texts; 'tei', 'endpoint' and 'local' do", target=self.target.label
            )

    def refuse_labels(self, request: ClassifyRequest, instead: str) -> None:
        """Raise Unsupported for labels of the caller, which this kind does not accept.

        Args:
            request: the request.
            instead: what to use for them, in words that follow "use".
        """
        if request.labels:
            raise Unsupported(
                f"knows its model's labels only; for labels of your own use {instead}", target=self.target.label
            )
