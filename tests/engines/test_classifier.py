"""Labels in this process: the same as transformers' own pipelines give, with tiny models made here."""

import asyncio
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import ClassifyGateway, Target, errors
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.values.labels import ClassifyRequest, Label
from tests.servers.images import png
from tests.support.classifiers import FORMS, Classifier, assert_same_labels, pairs
from tests.support.late import COLLECTED
from tests.support.tiny_classifiers import EMOTIONS, JUDGEMENTS, image_classifier, text_classifier
from tests.support.tiny_encoders import TEXTS

if COLLECTED:
    import transformers
    from PIL import Image

    from hf_gateway.engines import classifier
    from hf_gateway.engines.classifier import Engine

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("torch")]

LABELS = ["France", "dogs and foxes", "numbers"]
SHORT = [text for text in TEXTS if len(text) < 50]
LONG = "a very long text that goes on and on " * 40
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture(params=["openvino", "onnxruntime", "torch"])
def local(request: pytest.FixtureRequest) -> Target:
    return Target("local", options={"engine": request.param})


@pytest.fixture(scope="module")
def emotions(folder: Path) -> Path:
    return text_classifier(folder / "emotions")


@pytest.fixture(scope="module")
def judgements(folder: Path) -> Path:
    return text_classifier(folder / "judgements", "roberta", JUDGEMENTS, seed=1)


@pytest.fixture(scope="module")
def vision(folder: Path) -> Path:
    return image_classifier(folder / "vision")


def drawing(width: int, height: int, mode: str = "RGB", form: str = "PNG", seed: int = 0) -> bytes:
    """Return an image in which every pixel differs from its neighbours."""
    made = Image.new("RGB", (width, height))
    made.putdata(
        [(x * 7 + seed) % 256 for x in range(width * height)]
        and [((x * 7 + seed) % 256, (x * 13) % 256, (x // width * 11) % 256) for x in range(width * height)]
    )
    file = io.BytesIO()
    made.convert(mode).save(file, form)
    return file.getvalue()


def assert_same(found: Sequence[Label], entries: Sequence[dict[str, Any]]) -> None:
    assert_same_labels(found, [(entry["label"], entry["score"]) for entry in entries])


class TestTexts:
    @pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
    @pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
    def test_have_the_labels_of_transformers_pipeline(
        self, tmp_path: Path, local: Target, family: str, problem: str
    ) -> None:
        made = text_classifier(tmp_path / family, family, seed=2, problem_type=problem)
        pipeline = transformers.pipeline("text-classification", model=str(made))
        with ClassifyGateway(str(made), [local], truncate=True) as gateway:
            result = gateway.classify(SHORT)
        for text, labels in zip(SHORT, result, strict=True):
            assert_same(labels, pipeline(text, top_k=None))
        assert result.served_by == (f"local:{made}",)
        counted = [len(pipeline.tokenizer(text)["input_ids"]) for text in SHORT]
        assert (result.usage.input_tokens, result.usage.documents) == (sum(counted), len(SHORT))
        assert len({each.score for labels in result for each in labels}) > len(SHORT)

    @pytest.mark.parametrize(("labels", "problem"), [(["quality"], None), (["quality"], "regression")])
    def test_of_one_label_have_the_pipelines_score(
        self, tmp_path: Path, local: Target, labels: list[str], problem: str | None
    ) -> None:
        made = text_classifier(tmp_path / "one", labels=labels, problem_type=problem)
        pipeline = transformers.pipeline("text-classification", model=str(made))
        with ClassifyGateway(str(made), [local]) as gateway:
            assert_same(gateway.classify(["a cat"])[0], pipeline("a cat", top_k=None))

    def test_have_the_logits_of_transformers_pipeline(self, emotions: Path, local: Target) -> None:
        pipeline = transformers.pipeline("text-classification", model=str(emotions))
        with ClassifyGateway(str(emotions), [local], scale="logit") as gateway:
            assert_same(gateway.classify(["a cat"])[0], pipeline("a cat", top_k=None, function_to_apply="none"))

    def test_are_answered_in_order_whatever_their_length(self, emotions: Path) -> None:
        texts = [("fox " * (1 + number * 7 % 30)) + str(number) for number in range(60)]
        with ClassifyGateway(str(emotions)) as gateway:
            together = gateway.classify([*texts, texts[0]])
            for place in (0, 17, 59):
                (alone,) = gateway.classify([texts[place]])
                assert_same_labels(alone, pairs(together[place]), 1e-5)
        assert together[60] == together[0]

    def test_that_are_too_long_are_refused_or_truncated_as_the_pipeline_does(
        self, emotions: Path, local: Target
    ) -> None:
        pipeline = transformers.pipeline("text-classification", model=str(emotions))
        with ClassifyGateway(str(emotions), [local], truncate=True) as gateway:
            assert_same(gateway.classify([LONG])[0], pipeline(LONG, top_k=None, truncation=True, max_length=64))

    @pytest.mark.parametrize("second", ["a dog", LONG], ids=["short", "too long"])
    def test_in_pairs_have_the_labels_of_transformers_pipeline(
        self, judgements: Path, local: Target, second: str
    ) -> None:
        pipeline = transformers.pipeline("text-classification", model=str(judgements))
        given = {"text": "the fox is quick", "text_pair": second}
        with ClassifyGateway(str(judgements), [local], truncate=True) as gateway:
            (found,) = gateway.classify([("the fox is quick", second)])
        assert_same(found, pipeline(given, top_k=None, truncation=True, max_length=64))

    @pytest.mark.parametrize("form", FORMS)
    def test_that_are_too_long_are_named_with_both_lengths(self, emotions: Path, local: Target, form: str) -> None:
        length = len(transformers.AutoTokenizer.from_pretrained(str(emotions))(LONG)["input_ids"])
        classify = Classifier(form, [local], model=str(emotions))
        with (
            classify.gateway,
            pytest.raises(errors.ContextOverflow, match=f"input 3 of 5 has {length} tokens") as caught,
        ):
            classify(["a", "b", "a", LONG, "c"])
        assert (caught.value.place, caught.value.limit, caught.value.length) == (3, 64, length)

    async def test_are_answered_without_blocking_the_event_loop(self, emotions: Path) -> None:
        async with ClassifyGateway(str(emotions)) as gateway:
            first, second = await asyncio.gather(gateway.aclassify(["a cat"]), gateway.aclassify(["a dog"]))
            assert first.labels == gateway.classify(["a cat"]).labels != second.labels


class TestGivenLabels:
    @pytest.mark.parametrize("multi_label", [False, True])
    @pytest.mark.parametrize("labels", [LABELS, LABELS[:1]])
    def test_have_the_scores_of_transformers_pipeline(
        self, judgements: Path, local: Target, labels: list[str], multi_label: bool
    ) -> None:
        pipeline = transformers.pipeline("zero-shot-classification", model=str(judgements))
        with ClassifyGateway(str(judgements), [local], labels=labels, multi_label=multi_label) as gateway:
            result = gateway.classify(SHORT, hypothesis_template="It is {}.")
        for text, found in zip(SHORT, result, strict=True):
            answer = pipeline(text, labels, multi_label=multi_label, hypothesis_template="It is {}.")
            pairs = zip(answer["labels"], answer["scores"], strict=True)
            assert_same(found, [{"label": label, "score": score} for label, score in pairs])

    def test_judge_by_the_models_own_order_of_its_labels(self, tmp_path: Path) -> None:
        made = text_classifier(tmp_path / "other", labels=("ENTAILMENT", "NEUTRAL", "CONTRADICTION"), seed=3)
        pipeline = transformers.pipeline("zero-shot-classification", model=str(made))
        with ClassifyGateway(str(made)) as gateway:
            (found,) = gateway.classify(["a cat"], LABELS, multi_label=True)
        answer = pipeline("a cat", LABELS, multi_label=True)
        assert {each.label: each.score for each in found} == pytest.approx(
            dict(zip(answer["labels"], answer["scores"], strict=True)), abs=1e-4
        )

    @pytest.mark.parametrize("form", FORMS)
    def test_are_named_with_the_text_that_is_too_long(self, judgements: Path, local: Target, form: str) -> None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(judgements))
        length = len(tokenizer(LONG, "This example is France.")["input_ids"])
        classify = Classifier(form, [local], model=str(judgements))
        with (
            classify.gateway,
            pytest.raises(errors.ContextOverflow, match="with the sentence 'This example is F") as caught,
        ):
            classify(["a", "a", LONG], LABELS)
        assert (caught.value.place, caught.value.limit, caught.value.length) == (2, 64, length)
        assert "input 2 of 3 has, with" in str(caught.value)

    def test_are_truncated_in_the_text_and_not_in_the_label(self, judgements: Path, local: Target) -> None:
        with (
            ClassifyGateway(str(judgements), [local]) as gateway,
            pytest.raises(errors.ContextOverflow, match="with the sentence"),
        ):
            gateway.classify([LONG], LABELS)
        with ClassifyGateway(str(judgements), [local], truncate=True) as gateway:
            (found,) = gateway.classify([LONG], LABELS)
            assert sorted(each.label for each in found) == sorted(LABELS)
            with pytest.raises(errors.ContextOverflow, match=r"input 0 of 2 .* leaves no room") as caught:
                gateway.classify(["a cat", "a dog"], [LONG])
            assert caught.value.place == 0

    def test_need_a_model_for_natural_language_inference(self, emotions: Path) -> None:
        with (
            ClassifyGateway(str(emotions)) as gateway,
            pytest.raises(errors.Unsupported, match="anger, joy, sadness, fear"),
        ):
            gateway.classify(["a cat"], LABELS)


class TestImages:
    def test_have_the_labels_of_transformers_pipeline(self, vision: Path) -> None:
        images = [
            drawing(32, 32),
            drawing(200, 20, seed=5),
            drawing(10, 90, "L"),
            drawing(40, 40, "P", "GIF"),
            drawing(30, 50, "RGBA", "WEBP"),
            drawing(64, 48, form="JPEG"),
        ]
        pipeline = transformers.pipeline("image-classification", model=str(vision))
        with ClassifyGateway(str(vision)) as gateway:
            result = gateway.classify([*images, images[0]])
        for image, labels in zip(images, result, strict=False):
            assert_same(labels, pipeline(Image.open(io.BytesIO(image)).convert("RGB"), top_k=10))
        assert result[6] == result[0] != result[1]
        assert (result.usage.images, result.usage.documents, result.usage.input_tokens) == (7 - 1, 0, None)

    def test_go_in_batches_with_the_order_kept(self, vision: Path) -> None:
        images = [drawing(8, 8, seed=number) for number in range(70)]
        with ClassifyGateway(str(vision)) as gateway:
            result = gateway.classify(images)
            assert [each.score for each in result[69]] == pytest.approx(
                [each.score for each in gateway.classify([images[69]])[0]], abs=1e-5
            )
        assert len(result) == 70

    def test_that_cannot_be_decoded_or_are_too_large_are_the_callers_fault(self, vision: Path) -> None:
        whole = drawing(64, 64)
        bomb = bytearray(png("bomb"))
        bomb[16:24] = (60_000).to_bytes(4, "big") * 2
        with ClassifyGateway(str(vision)) as gateway:
            for broken in (whole[: len(whole) // 2], whole[:40], b"\xff\xd8\xff" + bytes(100)):
                with pytest.raises(errors.InvalidRequest, match=r"input 1 of 2 \((PNG|JPEG|image/).*cannot be decoded"):
                    gateway.classify([whole, broken])
            with pytest.raises(errors.InvalidRequest, match=r"cannot be decoded|60,000 x 60,000 pixels"):
                gateway.classify([bytes(bomb)])

    def test_are_named_as_the_caller_counts(self, vision: Path) -> None:
        images = [drawing(8, 8, seed=number) for number in range(40)]
        with (
            ClassifyGateway(str(vision)) as gateway,
            pytest.raises(errors.InvalidRequest, match=r"input 42 of 43 \(.*\) cannot be decoded") as caught,
        ):
            gateway.classify([*images[:2], *images, images[39][:60]])
        assert caught.value.place == 42

    def test_are_decoded_a_batch_at_a_time(self, vision: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        images = [drawing(10, 10 + number, seed=number) for number in range(6)]
        with ClassifyGateway(str(vision)) as gateway:
            whole = gateway.classify(images)
            monkeypatch.setattr(classifier, "MAX_BATCH_PIXELS", 250)
            engine = gateway.candidates[0].ability.engine()._network  # type: ignore[attr-defined]
            sizes, passed = [], engine._pixels
            monkeypatch.setattr(engine, "_pixels", lambda batch: sizes.append(len(batch)) or passed(batch))  # type: ignore[func-returns-value]
            parts = gateway.classify(images)
        assert sizes == [2, 2, 1, 1]  # 100 + 110, 120 + 130, 140, 150 pixels
        for found, wanted in zip(parts, whole, strict=True):
            assert [each.score for each in found] == pytest.approx([each.score for each in wanted], abs=1e-5)

    def test_of_a_size_that_pillow_warns_of_are_classified_or_refused_without_a_warning(
        self, vision: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
    ) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
        with ClassifyGateway(str(vision)) as gateway:
            gateway.classify([drawing(64, 64)])
        assert not [each for each in recwarn if each.category is Image.DecompressionBombWarning]

    def test_and_texts_need_a_model_of_their_own(self, vision: Path, emotions: Path) -> None:
        for model, inputs in ((vision, ["a cat"]), (emotions, [png("a")])):
            with ClassifyGateway(str(model)) as gateway, pytest.raises(errors.Unsupported, match="does not accept"):
                gateway.classify(inputs)


class TestLoading:
    def test_weights_that_are_missing_are_never_random_numbers(self, emotions: Path, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(emotions / "model.safetensors")
        for file in emotions.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        save_file(
            {name: tensor for name, tensor in tensors.items() if "classifier" not in name},
            tmp_path / "model.safetensors",
        )
        with ClassifyGateway(str(tmp_path)) as gateway, pytest.raises(errors.EngineFailed, match=r"classifier\.weight"):
            gateway.classify(["a cat"])

    def test_pickles_are_not_loaded(self, emotions: Path, tmp_path: Path) -> None:
        for file in emotions.iterdir():
            (tmp_path / file.name.replace("model.safetensors", "pytorch_model.bin")).write_bytes(file.read_bytes())
        with (
            ClassifyGateway(str(tmp_path)) as gateway,
            pytest.raises(errors.EngineFailed, match="no weights in safetensors"),
        ):
            gateway.classify(["a cat"])

    def test_code_of_a_repository_is_not_run(self, emotions: Path, tmp_path: Path) -> None:
        for file in emotions.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = json.loads((tmp_path / "config.json").read_text())
        config |= {
            "model_type": "own",
            "auto_map": {"AutoConfig": "code.Own", "AutoModelForSequenceClassification": "code.Own"},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "code.py").write_text("raise SystemExit('ran')\n")
        with ClassifyGateway(str(tmp_path)) as gateway, pytest.raises(errors.EngineFailed, match="cannot be loaded"):
            gateway.classify(["a cat"])

    def test_a_loaded_model_is_shared_and_described(self, emotions: Path) -> None:
        with ClassifyGateway(str(emotions)) as one, ClassifyGateway(str(emotions)) as other:
            assert "on this machine" in one.check()[0].report.detail
            one.classify(["a cat"])
            other.classify(["a cat"])
            assert one.candidates[0].ability.engine() is other.candidates[0].ability.engine()  # type: ignore[attr-defined]
            assert "on cpu by openvino" in one.check()[0].report.detail
            assert one.candidates[0].context == 64

    def test_options_of_the_target_count(self, emotions: Path) -> None:
        target = Target("local", model=str(emotions), options={"dtype": "bfloat16", "batch_size": 2, "device": "cpu"})
        with ClassifyGateway(targets=[target]) as gateway, ClassifyGateway(str(emotions)) as plain:
            half, full = gateway.classify(SHORT), plain.classify(SHORT)
        assert half.labels != full.labels
        assert [labels[0].score for labels in half] == pytest.approx([labels[0].score for labels in full], abs=0.1)

    def test_a_language_model_without_padding_labels_several_texts(self, tmp_path: Path) -> None:
        import torch

        from tests.support.tiny_encoders import tokenizer

        made = tokenizer("roberta", tmp_path / "raw")
        made.pad_token = None
        torch.manual_seed(0)
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.4}
        config = transformers.GPT2Config(vocab_size=len(made), id2label=dict(enumerate(EMOTIONS)), **sizes)
        transformers.GPT2ForSequenceClassification(config).eval().save_pretrained(tmp_path / "gpt")
        made.save_pretrained(tmp_path / "gpt")
        loaded = Engine(ModelFiles(tmp_path / "gpt", "path"), {})
        together = loaded.classify(ClassifyRequest.of(["a cat", "a dog lives in the capital"])).labels
        (alone,) = loaded.classify(ClassifyRequest.of(["a cat"])).labels
        assert [each.score for each in together[0]] == pytest.approx([each.score for each in alone], abs=1e-4)
