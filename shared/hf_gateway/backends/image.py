"""Base of all text-to-image abilities: limits of an answer, and the download of images that an answer names by a URL."""

from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

from hf_gateway.backends.base import Ability, Server
from hf_gateway.errors import AttemptTimedOut, BadResponse, BatchTooLarge, ConnectFailed, GatewayError
from hf_gateway.keys.credentials import Credential, origin_of
from hf_gateway.runtime.effects import Effects, Pause, Send
from hf_gateway.settings.image import ImageOptions
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.image import ImageRequest
from hf_gateway.values.redaction import shown_url
from hf_gateway.wire import images
from hf_gateway.wire.retry_after import retry_after_seconds

MAX_ENVELOPE_BYTES = 2**20
"""Maximum size of what is around the images in JSON."""
DOWNLOAD_TRIES = 3
"""How often an image that was made already is downloaded, at most."""
DOWNLOAD_PAUSE_S = 0.2
"""Pause before a download is repeated, unless the server of the file asks for another one."""
MAX_DOWNLOAD_PAUSE_S = 10.0
"""The longest pause that the server of a file may ask for."""
PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which a download is repeated."""


class ImageAbility(Ability):
    """Makes images. A kind's class implements `draw` and `probe`, and says how many images fit into one request."""

    options: ImageOptions

    def __init__(self, server: Server, options: ImageOptions) -> None:
        super().__init__(server, options)
        self.options = options

    def most_images(self, request: ImageRequest) -> int | None:  # noqa: ARG002 - for subclasses
        """Return how many images one request may ask for; None for any number."""
        return 1

    def check_count(self, request: ImageRequest) -> None:
        """Raise BatchTooLarge, before anything is sent, for more images than one request may ask for."""
        most = self.most_images(request)
        if most is not None and request.n > most:
            raise BatchTooLarge(f"makes {images.count_words(most)} at once", max_texts=most)

    def draw(self, request: ImageRequest) -> Effects:
        """Make the images of a request; returns an `ImageAnswer`. Raises GatewayError."""
        raise NotImplementedError

    def send(self, request: HttpRequest, count: int = 1) -> Generator[Any, Any, HttpResponse]:
        """Send a request whose answer may have images in it.

        Args:
            request: the request.
            count: how many images the answer may have.
        """
        # Base64 takes 4 characters for 3 bytes.
        most = count * (self.options.max_image_bytes * 4 // 3 + 4) + MAX_ENVELOPE_BYTES
        response: HttpResponse = yield Send(request, self.server.credential(), max_bytes=most)
        return response

    def fetch_image(self, url: str) -> Effects:
        """Return the bytes of an image that an answer names: a `data:` URL, or one over https or at the target's own origin.

        The target's key is sent to its own origin only, and a redirect to another one is not followed. Only the download is
        repeated after a failure that may pass: the request that made the image would cost again.

        Args:
            url: as the answer has it.

        Raises:
            BadResponse: another kind of URL, a file that is refused, or what is there is not an image.
        """
        label = self.target.label
        if images.is_data_url(url):
            return images.decode_data_url(url, target=label)
        credential = self._credential_for(url)
        request = HttpRequest("GET", url, headers={"accept": images.ACCEPTED})
        for left in reversed(range(DOWNLOAD_TRIES)):
            pause = DOWNLOAD_PAUSE_S
            try:
                response = yield Send(request, credential, max_bytes=self.options.max_image_bytes)
                if 200 <= response.status < 300:
                    return images.decode_image(response, target=label)
                failure = self._lost_file(url, f"HTTP {response.status}", response.status)
                again = response.status in PASSING_STATUSES
                pause = retry_after_seconds(response.headers) or pause
            except AttemptTimedOut:
                raise
            except GatewayError as error:
                failure = self._lost_file(url, error.message, error.status)
                again = isinstance(error, ConnectFailed)
            if not again or not left or pause > MAX_DOWNLOAD_PAUSE_S:
                raise failure
            yield Pause(pause)
        raise AssertionError("unreachable")

    def _lost_file(self, url: str, why: str, status: int | None) -> BadResponse:
        """Return the error for a file that cannot be fetched: never one after which the same target is asked again."""
        return BadResponse(
            f"its image at {shown_url(url)} could not be fetched: {why}", target=self.target.label, status=status
        )

    def _credential_for(self, url: str) -> Credential | None:
        try:
            own = origin_of(url) == origin_of(self.server.base_url)
            scheme, path = urlsplit(url).scheme, urlsplit(url).path
        except ValueError:
            raise BadResponse("names an image by an invalid URL", target=self.target.label) from None
        if own and ".." in path.lower().replace("%2e", ".").split("/"):
            # HTTP libraries resolve it each in its own way, and the key goes with it.
            raise BadResponse(
                "names an image by a URL with '..' in its path; it was not fetched", target=self.target.label
            )
        if not own and scheme != "https":
            raise BadResponse(
                f"names an image at {shown_url(url)}, which is neither https nor on the target's own server; it was not fetched",
                target=self.target.label,
            )
        return self.server.credential() if own else None
