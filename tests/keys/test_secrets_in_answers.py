"""A server that quotes the key in its answer: the key is in no error, wherever in the answer it stood."""

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from tests.servers.chat import script
from tests.servers.loopback import Reply, error_in_stream, garble_stream
from tests.servers.openai import FakeOpenAI
from tests.support.chatters import FORMS, Chatter

KEY = "the-servers-own-key"
SAID = {"error": {"message": f"engine died for {KEY}", "code": 500}}

FAULTS: dict[str, Callable[[int], Any]] = {
    "an error status": lambda _: Reply(500, SAID),
    "an error inside a 200": lambda _: Reply(200, SAID),
    "a page instead of JSON": lambda _: Reply(200, f"quoting {KEY}", {"content-type": "application/json"}),
    "an error inside a stream": lambda after: error_in_stream(after, SAID),
    "a garbled event": lambda after: garble_stream(after, f"data: {{{KEY}\n\n".encode()),
}


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(getattr(error, "attempts", ""))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("after", [1, 3], ids=["before the first content", "after it"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_chat_error_never_quotes_the_key(fault: str, after: int, form: str) -> None:
    with FakeOpenAI(models=None, api_key=KEY, brain=script("Once upon a time")) as server:
        server.always(FAULTS[fault](after))
        make = Chatter(form, [Target("openai", url=server.url, credential=KEY)], streaming=True, max_retries=0)
        with pytest.raises(errors.GatewayError) as caught:
            make.ask()
    assert KEY not in told(caught.value)
    assert "***" in told(caught.value)


@pytest.mark.parametrize("fault", ["an error status", "a page instead of JSON"])
def test_an_embedding_error_never_quotes_the_key(fault: str) -> None:
    with FakeOpenAI(models=None, api_key=KEY) as server:
        server.always(FAULTS[fault](0))
        with pytest.raises(errors.GatewayError) as caught:
            Gateway("m", [Target("openai", url=server.url, credential=KEY)], max_retries=0).embed(["text"])
    assert KEY not in told(caught.value)
    assert "***" in told(caught.value)
