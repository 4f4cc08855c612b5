"""huggingface_hub's InferenceClient and LlamaIndex's class for text-embeddings-inference, against a real process.

`make hub1` runs it with the other generation of huggingface_hub.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.chat import script
from tests.servers.images import png
from tests.servers.labels import FakeToolkit, label_list, zero_shot
from tests.servers.loopback import Reply, cut_stream, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import START_S, ServerProcess, chat_chain
from tests.support.late import COLLECTED

if COLLECTED:
    from huggingface_hub import AsyncInferenceClient, InferenceClient
    from huggingface_hub.errors import GenerationError, HfHubHTTPError
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    from hf_gateway import Gateway

DOCS = '[chains.docs]\ntargets = ["hash:64"]\n'
WAITS = "attempt_timeout = 300\nfirst_content_timeout = 300\nstall_timeout = 300"


def label_chain(name: str, url: str) -> str:
    return f'[chains.{name}]\ntask = "classification"\nmodel = "owner/{name}"\ntargets = ["endpoint:{url}"]\n'


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None, brain=script("One two three.")) as made:
        yield made


@contextlib.contextmanager
def served(config: str) -> Iterator[str]:
    with ServerProcess(config) as process:
        yield process.url


def expected_vectors(texts: list[str]) -> list[list[float]]:
    with Gateway(targets=["hash:64"]) as gateway:
        found: list[list[float]] = gateway.embed(texts).vectors.tolist()
    return found


def test_embeds_at_each_of_the_urls() -> None:
    expected = expected_vectors(["one", "two"])
    with served(DOCS) as url:
        for base in (url, f"{url}/tei/docs", f"{url}/models/docs", f"{url}/models/docs/pipeline/feature-extraction"):
            client = InferenceClient(base_url=base)
            assert client.feature_extraction(["one", "two"]).tolist() == expected  # type: ignore[arg-type]
            assert client.feature_extraction("one", truncate=True).ravel().tolist() == expected[0]


def test_generates_text_whole_and_streamed(fake: FakeOpenAI) -> None:
    with served(chat_chain(fake.url)) as url:
        client = InferenceClient(base_url=f"{url}/tei/chat")
        assert client.text_generation("count", max_new_tokens=20) == "One two three."
        assert client.text_generation("count", details=True).details.generated_tokens == 3  # type: ignore[union-attr]
        assert "".join(client.text_generation("count", stream=True)) == "One two three."
        last = list(client.text_generation("count", stream=True, details=True))[-1]
        assert last.generated_text == "One two three."


def test_chats_whole_and_streamed(fake: FakeOpenAI) -> None:
    ask: list[Any] = [{"role": "user", "content": "count"}]
    with served(chat_chain(fake.url)) as url:
        # Without a model the client sends one that it calls "dummy", so that the URL has to name the chain.
        client = InferenceClient(base_url=f"{url}/tei/chat")
        assert client.chat_completion(ask).choices[0].message.content == "One two three."
        pieces = [piece.choices[0].delta.content or "" for piece in client.chat_completion(ask, stream=True)]
        assert "".join(pieces) == "One two three."
        named = InferenceClient(base_url=url)
        assert named.chat_completion(ask, model="chat").choices[0].message.content == "One two three."


def test_labels_texts_and_images(tmp_path: Path) -> None:
    kinds = ("text-classification", "image-classification", "zero-shot-classification")
    image = png("a cat")
    file = tmp_path / "cat.png"
    file.write_bytes(image)
    with contextlib.ExitStack() as stack:
        fakes = {kind: stack.enter_context(FakeToolkit(kind)) for kind in kinds}
        url = stack.enter_context(served("".join(label_chain(kind, fakes[kind].url) for kind in kinds)))
        texts, images, given = (InferenceClient(base_url=f"{url}/models/{kind}") for kind in kinds)
        found = texts.text_classification("fine")
        for form in (image, file):
            seen = images.image_classification(form, top_k=1 if form is file else None)
            assert seen[0].label == label_list(image)[0]["label"]
        chosen = given.zero_shot_classification("fine", ["good", "bad"])
    assert [{"label": each.label, "score": each.score} for each in found] == label_list("fine")
    assert {each.label: pytest.approx(each.score) for each in chosen} == zero_shot("fine", ["good", "bad"])


def test_draws(fake: FakeOpenAI) -> None:
    config = f'[chains.draw]\ntask = "image"\nmodel = "owner/draw"\ntargets = ["openai:{fake.url}"]\n'
    with served(config) as url:
        image = InferenceClient(base_url=f"{url}/models/draw").text_to_image("a cat", width=64, height=64)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_raises_its_own_error_with_the_reason(fake: FakeOpenAI) -> None:
    with served(DOCS + chat_chain(fake.url)) as url:
        with pytest.raises(HfHubHTTPError, match="did you mean 'docs'") as unknown:
            InferenceClient(base_url=f"{url}/models/dogs").feature_extraction("x")
        assert unknown.value.response.status_code == 404
        fake.always(Reply(400, {"error": {"message": "maximum context length is 3 tokens"}}))
        with pytest.raises(HfHubHTTPError, match="context length") as long:
            InferenceClient(base_url=f"{url}/models/chat").text_generation("count")
        assert long.value.response.status_code == 400
        fake.recover()
        fake.always(cut_stream(2))
        client = InferenceClient(base_url=f"{url}/models/chat")
        stream = iter(client.text_generation("count", stream=True))
        assert next(stream)
        with pytest.raises(GenerationError):
            list(stream)


def test_leaves_and_the_work_stops(fake: FakeOpenAI) -> None:
    stall = stall_stream(2)
    fake.always(stall)
    with served(chat_chain(fake.url, more=WAITS)) as url, contextlib.closing(_Leaving(f"{url}/models/chat")) as leaving:
        next(leaving.stream)
        leaving.close()
        assert stall.disconnected.wait(START_S)


class _Leaving:
    """A client that reads a stream, and can be closed in the middle."""

    def __init__(self, url: str) -> None:
        self._context = InferenceClient(base_url=url)
        self.stream = iter(self._context.text_generation("count", stream=True))

    def close(self) -> None:
        self.stream.close()  # type: ignore[attr-defined]
        self._context.exit_stack.close()


async def test_the_async_client() -> None:
    with served(DOCS) as url:
        async with AsyncInferenceClient(base_url=url) as client:
            found = await client.feature_extraction(["one", "two"])  # type: ignore[arg-type]
    assert found.tolist() == expected_vectors(["one", "two"])


def test_llamaindexs_class_for_text_embeddings_inference() -> None:
    expected = expected_vectors(["one", "two"])
    with served(DOCS) as url:
        for base in (url, f"{url}/tei/docs"):
            # A name that the class knows no instructions of.
            model = TextEmbeddingsInference("owner/name", base_url=base, query_instruction="", text_instruction="")
            assert model.get_text_embedding_batch(["one", "two"]) == expected
            assert model.get_query_embedding("one") == expected[0]
