"""A host of the internet in the tests: its address over https leads to a server on loopback."""

import dataclasses
from typing import Any

from hf_gateway.http.transport import HttpTransport
from hf_gateway.runtime.effects import Send
from hf_gateway.values.http import HttpResponse
from tests.servers.loopback import Loopback

HOST = "https://files.test"


class Elsewhere:
    """A transport for which HOST is a loopback server. headers: what each request there would carry of the key."""

    def __init__(self, server: Loopback) -> None:
        self._inner: Any = HttpTransport()
        self._server = server
        self.headers: list[dict[str, str]] = []

    def _moved(self, send: Send) -> Send:
        url = send.request.url
        if not url.startswith(f"{HOST}/"):
            return send
        self.headers.append(send.credential.header_for(url) if send.credential else {})
        moved = url.replace(HOST, self._server.url)
        return dataclasses.replace(send, request=dataclasses.replace(send.request, url=moved), credential=None)

    def send(self, send: Send, **limits: Any) -> HttpResponse:
        return self._inner.send(self._moved(send), **limits)

    async def asend(self, send: Send, **limits: Any) -> HttpResponse:
        return await self._inner.asend(self._moved(send), **limits)
