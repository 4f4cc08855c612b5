"""Classification as its callers see it: checks of the input, order, duplicates, batches, one target for all inputs of a call."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from hf_gateway import ClassifyGateway, Gateway, errors
from hf_gateway.values.labels import ClassifyRequest, Label, entailment, zero_shot_scores
from tests.servers.images import JPEG, WEBP, png
from tests.servers.labels import LABELS, NLI, expected, label_list, paired, zero_shot
from tests.servers.loopback import Normal, Reply, dead_url, html
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI
from tests.support.classifiers import FORMS, MODEL, Classifier, same
from tests.support.embedders import chain

GIF = b"GIF89a" + bytes(20)
Make = Callable[..., Classifier]


@pytest.fixture(params=FORMS)
def make(request: pytest.FixtureRequest) -> Make:
    return lambda *arguments, **settings: Classifier(request.param, *arguments, **settings)


def tei(**settings: Any) -> FakeTEI:
    return FakeTEI(**{"model_type": "classifier", "model_id": MODEL, **settings})


class TestInput:
    """What is wrong is refused before anything is sent."""

    @pytest.mark.parametrize(
        ("inputs", "named", "words"),
        [
            ("one text", {}, "inputs is one str; pass a list of strings"),
            (b"bytes", {}, "inputs is one bytes"),
            (7, {}, "inputs is int"),
            (["good", ""], {}, "text 1 of 2 is empty"),
            (["good", " \n"], {}, "text 1 of 2 has nothing but blanks"),
            (["good", 7], {}, "text 1 of 2 is int, not a string"),
            (["good", "\ud800"], {}, "text 1 of 2 has a lone surrogate"),
            (["good", png("a")], {}, "text 1 of 2 is bytes, not a string"),
            ([png("a"), "a text"], {}, "input 1 of 2 is str, and others are images"),
            (
                [b"<html>no image</html>"],
                {},
                "input 0 of 1 (21 bytes) is not an image of the type PNG, JPEG, WebP or GIF",
            ),
            ([png("a"), b""], {}, "input 1 of 2 (0 bytes) is not an image"),
            ([("a", "b"), "c"], {}, "input 1 of 2 is not a pair of texts"),
            ([("a", "b", "c")], {}, "input 0 of 1 is not a pair of texts"),
            ([("a", "b"), ("c", "")], {}, "a text of input 1 of 2 is empty"),
            ([("a", "b")], {"labels": ["cat"]}, "labels are for single texts"),
            ([png("a")], {"labels": ["cat", "dog"]}, "labels are for texts"),
            (["a"], {"labels": []}, "labels is empty"),
            (["a"], {"labels": "cat,dog"}, "labels is one str"),
            (["a"], {"labels": ["cat", ""]}, "label 1 of 2 is empty"),
            (["a"], {"labels": ["cat", "dog", "cat"]}, "the label 'cat' is given twice"),
            (
                ["a"],
                {"labels": ["cat"], "hypothesis_template": "no place"},
                "hypothesis_template is a text with one {}",
            ),
            (["a"], {"labels": ["cat"], "hypothesis_template": "{0.__class__}"}, "hypothesis_template is a text"),
            (["a"], {"multi_label": True}, "multi_label and hypothesis_template are for labels"),
            (["a"], {"top_k": 0}, "top_k is a whole number above 0"),
            (["a"], {"top_k": True}, "top_k is a whole number above 0"),
            pytest.param(["a"], {"top_k": -(10**5000)}, "top_k is a whole number above 0", id="a huge number"),
            pytest.param(["a"], {"top_k": png("a")}, "or None for all, not bytes", id="an image"),
        ],
    )
    def test_that_is_invalid_is_named(self, make: Make, inputs: Any, named: dict[str, Any], words: str) -> None:
        with tei() as server:
            with pytest.raises(errors.InvalidRequest) as caught:
                make([f"tei:{server.url}"])(inputs, **named)
            assert words in str(caught.value)
            assert "nothing was classified" in str(caught.value) or "pass a list" in str(caught.value)
            assert server.requests == []

    def test_of_settings_is_checked_when_the_chain_is_built(self) -> None:
        for wrong in ({"hypothesis_template": "{"}, {"top_k": 0}, {"labels": "a,b"}, {"label": ["a"]}):
            with pytest.raises((errors.ConfigError, ValueError)):
                ClassifyGateway(MODEL, ["tei:http://tei"], **wrong)
        for labels, words in (
            (["a", "a"], "the label 'a' is given twice"),
            ([], "labels is empty"),
            (["a", " "], "label 1 of 2 has nothing but blanks"),
        ):
            with pytest.raises(errors.ConfigError, match=words):
                ClassifyGateway(MODEL, ["tei:http://tei"], labels=labels)

    def test_that_is_empty_is_an_empty_result_without_a_request(self, make: Make) -> None:
        with tei() as server:
            result = make([f"tei:{server.url}"])([])
            assert (len(result), result.served_by, result.best, server.requests) == (0, (), [], [])

    def test_of_any_iterable_and_buffer_counts(self, make: Make) -> None:
        with tei() as server:
            assert len(make([f"tei:{server.url}"])(text for text in ("a", "b"))) == 2
        kinds: list[Any] = [JPEG, bytearray(WEBP), memoryview(GIF)]
        assert ClassifyRequest.of(kinds).images == [JPEG, WEBP, GIF]
        assert "PNG" not in repr(ClassifyRequest.of([png("a")]))


class TestLabels:
    def test_come_sorted_with_everything_about_the_call(self, make: Make) -> None:
        with tei() as server:
            result = make([f"tei:{server.url}"])(["one text", "another one"])
        for text, labels in zip(("one text", "another one"), result, strict=True):
            assert same(labels, expected(text))
            assert sum(each.score for each in labels) == pytest.approx(1.0)
        assert result.best == [labels[0] for labels in result]
        assert result[1] == result.labels[1]
        assert result.served_by == (f"tei:{server.url}",)
        assert (result.usage.input_tokens, result.usage.documents, result.usage.images) == (8, 2, 0)
        assert [attempt.outcome for attempt in result.attempts] == ["served"]

    def test_are_as_many_as_top_k(self, make: Make) -> None:
        with tei() as server:
            classify = make([f"tei:{server.url}"], top_k=2)
            assert same(classify(["a"])[0], expected("a")[:2])
            assert same(classify(["a"], top_k=1)[0], expected("a")[:1])
            assert len(classify(["a"], top_k=9)[0]) == 3

    def test_of_equal_scores_keep_the_targets_order(self, make: Make, primary: FakeOpenAI) -> None:
        entries = [{"label": name, "score": 0.25} for name in "dbca"]
        primary.fail(Reply(200, {"data": [entries]}))
        assert [each.label for each in make(chain(primary))(["a"])[0]] == list("dbca")

    def test_of_the_callers_come_from_a_model_for_entailment(self, make: Make) -> None:
        labels = ["billing", "delivery", "praise"]
        with tei(labels=NLI) as server:
            classify = make([f"tei:{server.url}"], labels=labels)
            result = classify(["My card was charged twice", "Late again"])
            one = classify(["Late again"], ["late"], hypothesis_template="It is about {}.")[0]
            several = classify(["Late again"], multi_label=True)[0]
        for text, found in zip(("My card was charged twice", "Late again"), result, strict=True):
            assert same(found, list(zip(*[paired(text, labels)[part] for part in ("labels", "scores")], strict=True)))
        assert [each.label for each in one] == ["late"]
        assert sum(each.score for each in several) != pytest.approx(1.0)
        # Two texts with three labels are six inputs of the model.
        assert [len(request.json["inputs"]) for request in server.requests if request.path == "/predict"] == [6, 1, 3]
        assert server.requests[1].json["raw_scores"] is True

    def test_of_the_callers_are_refused_by_other_models_and_the_next_target_is_asked(
        self, make: Make, primary: FakeOpenAI
    ) -> None:
        with tei() as other, tei(labels=("ENTAILMENT", "neutral", "contradiction")) as able:
            targets = [*chain(primary), f"tei:{other.url}", f"tei:{able.url}"]
            result = make(targets, labels=["a", "b"])(["text"])
            assert result.served_by == (f"tei:{able.url}",)
            why = [attempt.error or "" for attempt in result.attempts[:2]]
            assert "knows its model's labels only" in why[0]
            assert "labels of your own need a model for natural language inference" in why[1]
            assert primary.requests == []
            assert other.count("/predict") == 0


class TestScoresOfGivenLabels:
    def test_add_up_to_one_or_stand_by_themselves(self) -> None:
        logits = [(2.0, -1.0), (0.5, 0.5), (-3.0, 1.0)]
        shares = zero_shot_scores(logits, multi_label=False)
        assert sum(shares) == pytest.approx(1.0)
        assert shares[0] == pytest.approx(math.exp(2) / (math.exp(2) + math.exp(0.5) + math.exp(-3)))
        assert zero_shot_scores(logits, multi_label=True)[1] == pytest.approx(0.5)
        assert zero_shot_scores(logits[:1], multi_label=False)[0] == pytest.approx(1 / (1 + math.exp(-3)))

    def test_do_not_overflow(self) -> None:
        assert zero_shot_scores([(1e6, -1e6), (-1e6, 1e6)], multi_label=False) == [1.0, 0.0]
        assert zero_shot_scores([(1e6, -1e6), (-1e6, 1e6)], multi_label=True) == [1.0, 0.0]

    def test_need_entailment_among_the_models_labels(self) -> None:
        assert entailment(NLI) == (2, 0)
        assert entailment(("Entailment", "neutral", "contradiction")) == (0, 2)
        assert entailment(("contradiction", "entailment")) == (1, 0)
        assert entailment(LABELS) is None
        assert entailment(("entailment",)) is None


class TestPairs:
    def test_are_sent_once_in_parts_and_answered_in_order(self, make: Make) -> None:
        inputs = [(f"text {number % 50}", "another") for number in range(60)]
        with tei(max_client_batch_size=20) as server:
            result = make([f"tei:{server.url}"])(inputs)
            sent = [pair for request in server.requests[1:] for pair in request.json["inputs"]]
        assert sent == [list(pair) for pair in inputs[:50]]
        assert all(same(labels, expected("\n".join(pair))) for pair, labels in zip(inputs, result, strict=True))
        assert result.usage.documents == 50

    def test_go_to_a_target_that_labels_them(self, make: Make) -> None:
        with FakeOpenAI(models=None) as other, tei() as server:
            result = make([f"openai:{other.url}", f"tei:{server.url}"])([("one", "two")])
            assert other.requests == []
        assert result.attempts[0].error is not None
        assert "does not label pairs" in result.attempts[0].error


class TestBatches:
    def test_are_split_by_count_with_the_order_kept(self, make: Make) -> None:
        texts = [f"text {number}" for number in range(70)]
        with tei(max_client_batch_size=16) as server:
            result = make([f"tei:{server.url}"])(texts)
            sizes = [len(request.json["inputs"]) for request in server.requests if request.path == "/predict"]
        assert sizes == [16, 16, 16, 16, 6]
        assert all(same(labels, expected(text)) for text, labels in zip(texts, result, strict=True))
        assert result.usage.documents == 70

    def test_are_split_by_bytes_with_the_order_kept(self, make: Make) -> None:
        texts = [f"{number} {'word ' * 60_000}" for number in range(12)]
        with tei(max_input_length=100_000) as server:
            result = make([f"tei:{server.url}"])(texts)
            sizes = [len(request.body) for request in server.requests if request.path == "/predict"]
        assert len(sizes) > 1
        assert max(sizes) <= 2_000_000
        assert all(same(labels, expected(text)) for text, labels in zip(texts, result, strict=True))

    def test_count_each_text_once_for_each_given_label(self, make: Make) -> None:
        labels = [f"label {number}" for number in range(6)]
        texts = [f"text {number}" for number in range(5)]
        with tei(labels=NLI, max_client_batch_size=16) as server:
            result = make([f"tei:{server.url}"])(texts, labels)
            sizes = [len(request.json["inputs"]) for request in server.requests if request.path == "/predict"]
        assert sizes == [12, 12, 6]
        for text, found in zip(texts, result, strict=True):
            assert {each.label: each.score for each in found} == pytest.approx(zero_shot(text, labels))

    def test_divide_the_labels_of_one_text_that_are_more_than_a_server_takes(self, make: Make) -> None:
        labels = [f"label {number}" for number in range(40)]
        with tei(labels=NLI, max_client_batch_size=16, payload_limit=4_000_000) as server:
            result = make([f"tei:{server.url}"])(["one", "two"], labels)
            sizes = [len(request.json["inputs"]) for request in server.requests if request.path == "/predict"]
            assert sizes == [16, 16, 8] * 2
            assert result.usage.input_tokens == 2 * 40 * 8  # words and marks of a pair
        for text, found in zip(("one", "two"), result, strict=True):
            assert {each.label: each.score for each in found} == pytest.approx(zero_shot(text, labels))

    def test_divide_the_labels_of_a_long_text_by_bytes(self, make: Make) -> None:
        labels, text = ["a", "b", "c", "d", "e"], "word " * 100_000
        with tei(labels=NLI, max_input_length=1_000_000) as server:
            (found,) = make([f"tei:{server.url}"])([text], labels)
            sizes = [len(request.json["inputs"]) for request in server.requests if request.path == "/predict"]
        assert sizes == [3, 2]
        assert {each.label: each.score for each in found} == pytest.approx(zero_shot(text, labels))

    def test_send_each_text_of_a_call_once(self, make: Make) -> None:
        with tei() as server:
            result = make([f"tei:{server.url}"])(["a", "b", "a", "a"])
            assert server.requests[-1].json["inputs"] == [["a"], ["b"]]
        assert result[0] == result[2] == result[3] != result[1]
        assert len(result) == 4

    def test_two_texts_are_no_pair(self, make: Make) -> None:
        with tei() as server:
            assert len(make([f"tei:{server.url}"])(["a", "b"])) == 2

    def test_a_limit_that_the_server_reports_is_kept(self, make: Make) -> None:
        with FakeOpenAI(models=None, max_inputs=10) as server:
            classify = make(chain(server))
            texts = [f"text {number}" for number in range(45)]
            result = classify(texts)
            assert all(same(labels, expected(text)) for text, labels in zip(texts, result, strict=True))
            before = server.count("/v1/classify")
            classify(texts)
            assert server.count("/v1/classify") - before == 5

    def test_of_ten_thousand_texts_keep_the_order(self, make: Make) -> None:
        texts = [f"text {number % 5000}" for number in range(10_000)]
        with FakeOpenAI(models=None) as server:
            result = make(chain(server), timeout=120)(texts)
            assert server.count("/v1/classify") == 20  # 5,000 different ones, 256 at once
        assert len(result) == 10_000
        assert all(same(result[place], expected(texts[place])) for place in (0, 4_999, 5_000, 9_999))
        assert result[0] is result[5_000]


class TestTooLong:
    LONG = "word " * 300

    def test_is_refused_without_truncation(self, make: Make) -> None:
        with tei(max_input_length=64) as server:
            with pytest.raises(errors.ContextOverflow):
                make([f"tei:{server.url}"])(["short", self.LONG])
            assert server.requests[-1].json["truncate"] is False

    def test_is_named_as_the_caller_counts_with_both_lengths(self, make: Make) -> None:
        texts = ["text 0", *(f"text {number}" for number in range(50)), "text 7"]
        texts[42] = self.LONG
        with tei(max_input_length=64) as server:
            with pytest.raises(errors.ContextOverflow, match=r"input 42 of 52: .*less than 64 tokens") as caught:
                make([f"tei:{server.url}"])(texts)
            sizes = [len(request.json["inputs"]) for request in server.requests if request.path == "/predict"]
        assert (caught.value.place, caught.value.limit, caught.value.length) == (42, 64, 302)
        # 50 different ones, 32 at once; then only the parts with the long one are divided.
        assert sizes == [32, 18, 9, 9, 5, 3, 2, 1]

    def test_is_named_among_texts_with_given_labels(self, make: Make) -> None:
        texts = ["one", "two", self.LONG, "three"]
        with (
            tei(max_input_length=64, labels=NLI) as server,
            pytest.raises(errors.ContextOverflow, match="input 2 of 4: ") as caught,
        ):
            make([f"tei:{server.url}"])(texts, ["praise", "blame"])
        assert (caught.value.place, caught.value.limit) == (2, 64)
        assert (caught.value.length or 0) > 302  # with the label's sentence

    def test_is_named_alone_too(self, make: Make) -> None:
        with tei(max_input_length=64) as server:
            with pytest.raises(errors.ContextOverflow, match="input 0 of 1: ") as caught:
                make([f"tei:{server.url}"])([self.LONG])
            assert server.count("/predict") == 1
        assert (caught.value.place, caught.value.limit, caught.value.length) == (0, 64, 302)

    def test_is_named_whatever_words_refuse_it(self, make: Make) -> None:
        with FakeOpenAI(models=None, max_input_length=50) as server:
            with pytest.raises(errors.ContextOverflow, match="input 2 of 3: ") as caught:
                make(chain(server))(["a", "b", self.LONG])
            assert (caught.value.place, caught.value.limit, caught.value.length) == (2, 50, 302)
        with tei(payload_limit=900) as server:  # fewer bytes than that text has
            with pytest.raises(errors.ContextOverflow, match="input 1 of 4: too large for this target") as caught:
                make([f"tei:{server.url}"])(["a", self.LONG, "b", "c"])
            assert (caught.value.place, caught.value.status) == (1, 413)

    def test_is_named_by_every_target_of_a_chain(self, make: Make) -> None:
        with (
            tei(max_input_length=64) as one,
            tei(max_input_length=100) as other,
            pytest.raises(errors.AllTargetsFailed, match="input 2 of 3") as caught,
        ):
            make([f"tei:{one.url}", f"tei:{other.url}"])(["a", "b", self.LONG])
        overflows = [error for error in caught.value.errors if isinstance(error, errors.ContextOverflow)]
        assert [(each.place, each.limit, each.length) for each in overflows] == [(2, 64, 302), (2, 100, 302)]

    def test_is_taken_by_a_target_with_a_larger_context(self, make: Make) -> None:
        with tei(max_input_length=64) as small, tei(max_input_length=1000) as large:
            result = make([f"tei:{small.url}", f"tei:{large.url}"])(["a", self.LONG, "b"])
            assert (small.count("/predict"), large.count("/predict")) == (1, 1)
        assert result.served_by == (f"tei:{large.url}",)
        assert all(same(labels, expected(text)) for text, labels in zip(["a", self.LONG, "b"], result, strict=True))

    def test_is_truncated_if_that_is_allowed(self, make: Make) -> None:
        with tei(max_input_length=64) as server:
            result = make([f"tei:{server.url}"], truncate=True)(["short", self.LONG])
        assert same(result[1], expected(" ".join(["word"] * 62)))


class TestOneTarget:
    """The labels of several models do not belong together."""

    def test_that_takes_over_in_the_middle_classifies_everything(self, make: Make) -> None:
        texts = [f"text {number}" for number in range(40)]
        with tei(max_client_batch_size=16) as first, tei(max_client_batch_size=16, labels=("x", "y")) as second:
            broken = Reply(500, {"error": "no"})
            first.fail(Normal(), broken, broken, path="/predict")
            result = make([f"tei:{first.url}", f"tei:{second.url}"])(texts)
            assert second.count("/predict") == 4
        assert result.served_by == (f"tei:{second.url}",)
        assert {each.label for labels in result for each in labels} == {"x", "y"}


BAD: list[tuple[str, Any, str]] = [
    ("HTML", html(200), "an HTML page"),
    ("an object", Reply(200, {"labels": []}), "something else than a list of labels"),
    ("too few", Reply(200, [label_list("a")]), "labels of 1 input for 2 inputs"),
    ("too many", Reply(200, [label_list("a")] * 3), "labels of 3 inputs for 2 inputs"),
    ("an empty list", Reply(200, [label_list("a"), []]), "without a label for input 1"),
    ("null", Reply(200, [[{"label": "a", "score": None}]] * 2), "is None, not a finite number"),
    ("NaN", Reply(200, b'[[{"label":"a","score":NaN}],[{"label":"a","score":1}]]'), ""),
    ("Infinity", Reply(200, b'[[{"label":"a","score":1e999}],[{"label":"a","score":1}]]'), ""),
    ("true", Reply(200, [[{"label": "a", "score": True}]] * 2), "is True, not a finite number"),
    ("no label", Reply(200, [[{"score": 0.5}]] * 2), "an entry that has no label"),
    ("labels without scores", Reply(200, [["a"], ["b"]]), "an entry that has no label"),
]


@pytest.mark.parametrize(
    ("answer", "words"), [(answer, words) for _, answer, words in BAD], ids=[name for name, *_ in BAD]
)
def test_a_bad_answer_leads_to_the_next_target(make: Make, answer: Any, words: str) -> None:
    with tei() as first, tei() as second:
        first.always(answer, path="/predict")
        result = make([f"tei:{first.url}", f"tei:{second.url}"])(["a", "b"])
        assert result.served_by == (f"tei:{second.url}",)
        assert (first.count("/predict"), second.count("/predict")) == (1, 1)
        assert words in (result.attempts[0].error or "")
        with pytest.raises(errors.BadResponse):
            make([f"tei:{first.url}"])(["a", "b"])


def test_other_labels_than_those_given_are_a_bad_answer(make: Make) -> None:
    with tei(labels=NLI) as server:
        server.always(Reply(200, [label_list("a")] * 2), path="/predict")
        with pytest.raises(errors.BadResponse, match="without the labels entailment and contradiction"):
            make([f"tei:{server.url}"])(["a"], ["x", "y"])


def test_the_factory_and_the_methods_of_other_tasks() -> None:
    gateway = Gateway(MODEL, ["tei:http://tei"], task="classification")
    assert type(gateway) is ClassifyGateway
    with pytest.raises(
        errors.ConfigError, match="was built for labels; for embeddings leave task='classification' out"
    ):
        gateway.embed(["a"])  # type: ignore[attr-defined]
    with pytest.raises(errors.ConfigError, match=r"build it as Gateway\(\.\.\., task='classification'\)"):
        Gateway(MODEL, ["tei:http://tei"]).classify(["a"])  # type: ignore[attr-defined]
    with pytest.raises(errors.ConfigError, match="does not support classification"):
        ClassifyGateway(targets=["hash"])


def test_a_target_of_another_sort_of_model_says_so(make: Make) -> None:
    with (
        FakeTEI() as server,
        pytest.raises(errors.ModelNotFound, match="whose type is embedding, and not a classifier"),
    ):
        make([f"tei:{server.url}"])(["a"])


def test_check_and_status(primary: FakeOpenAI) -> None:
    with tei() as server:
        gateway = ClassifyGateway(MODEL, [f"tei:{server.url}", *chain(primary), f"openai:{dead_url()}"])
        checked = gateway.check()
        assert [each.answers for each in checked] == [True, True, False]
        assert "3 labels" in checked[0].report.detail
        assert [each.breaker for each in gateway.status()] == ["closed"] * 3


def test_a_label_is_a_value() -> None:
    assert Label("a", 0.5) == Label("a", 0.5)
