"""What attempts and requests cost, part by part: to the last digit, before the call and after it, and on whose machine."""

import dataclasses
import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.ledger.cost import cost_ceiling, cost_of, may_be_billed, total
from hf_gateway.ledger.prices import Price, PriceEntry, Prices, is_own
from hf_gateway.observing.observer import Observation
from hf_gateway.observing.record import AttemptRecord
from hf_gateway.spaces.fingerprint import CANARIES
from hf_gateway.tasks.chat.record import ChatDetails
from hf_gateway.tasks.embedding.record import EmbeddingDetails
from hf_gateway.values.chat import ChatRequest
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.target import Target
from hf_gateway.values.usage import Usage


def tried(target: Target, usage: Usage = Usage(1000, 100), **facts: Any) -> AttemptRecord:
    return AttemptRecord(target, facts.pop("outcome", "served"), usage=usage, **facts)


def hf(model: str, provider: str | None = None) -> Target:
    return Target("hf", model=model, provider=provider)


# What was done


@pytest.mark.parametrize(
    ("per_million", "cost"),
    [("0.0000005", "0"), ("0.00000051", "1e-12"), ("0.0000015", "2e-12"), ("0.0000025", "2e-12")],
)
def test_a_cost_is_kept_to_twelve_digits_half_to_even(per_million: str, cost: str) -> None:
    prices = Prices([PriceEntry("m", provider="p", price=Price(Decimal(per_million), Decimal(0)))])
    assert cost_of(tried(hf("m", "p"), Usage(1, 0)), "chat", prices) == (Decimal(cost), "configured")
    # Before the call it is rounded up: what is reserved is never less than what is charged.
    assert cost_ceiling(asked("a", Target("hf", model="m", provider="p")), prices)[0] > Decimal(cost)


def test_a_cost_that_nobody_pays_for_one_call_is_none() -> None:
    prices = Prices([PriceEntry("m", provider="p", price=Price(Decimal(10_000), Decimal(0)))])
    assert cost_of(tried(hf("m", "p"), Usage(999_999, 0)), "chat", prices) == (Decimal("9999.99"), "configured")
    assert cost_of(tried(hf("m", "p"), Usage(1_000_000, 0)), "chat", prices) == (None, "unknown")


@pytest.mark.parametrize(("status", "billed"), [(None, True), (200, True), (399, True), (400, False), (500, False)])
def test_what_a_server_refused_is_not_billed(status: int | None, billed: bool) -> None:
    error = errors.BadResponse("no", status=status)
    for outcome, expected in (("failed", billed), ("served", True), ("cancelled", True), ("split", False)):
        assert may_be_billed(tried(hf("m"), outcome=outcome, error=error)) is expected, outcome
    assert may_be_billed(tried(hf("m"), outcome="failed"))
    assert not may_be_billed(tried(hf("m"), outcome="failed", error=errors.ConnectFailed("no", status=status)))


def test_a_calls_own_model_is_the_one_that_is_paid_for() -> None:
    lines = [
        PriceEntry(model, provider="p", price=Price(Decimal(price), Decimal(0)))
        for model, price in (("m", 1), ("own", 3))
    ]
    assert cost_of(tried(hf("m", "p")), "chat", Prices(lines))[0] == Decimal("0.001")
    assert cost_of(tried(hf("m", "p"), asked="own"), "chat", Prices(lines))[0] == Decimal("0.003")


def test_the_source_of_a_sum_is_the_weakest_of_those_that_cost_something() -> None:
    word, price, hand = (
        (Decimal(1), "provider_reported"),
        (Decimal(1), "router_price"),
        (Decimal(1), "configured"),
    )
    assert total([word]) == (Decimal(1), "provider_reported")
    assert total([word, price]) == (Decimal(2), "router_price")
    assert total([price, word, hand]) == (Decimal(3), "configured")
    assert total([word, (Decimal(0), "configured")]) == (Decimal(1), "provider_reported")


# What a request may cost, before it is sent

A_DOLLAR_A_TOKEN = Price(Decimal(1_000_000), Decimal(1_000_000))
DEAR = Target("hf", model="m", provider="p")


def asked(request: Any, *targets: Target, model: str | None = "m") -> Observation:
    """A request on its way; a text for a conversation of that one word."""
    if isinstance(request, str):
        request = ChatRequest.of(request, max_tokens=1)
    details: Any = EmbeddingDetails(request) if isinstance(request, EmbedRequest) else ChatDetails(request)
    return Observation(
        task=details.task,
        chain=None,
        model=model,
        targets=targets or (DEAR,),
        streamed=False,
        time=0.0,
        began=0.0,
        details=details,
        **details.request_columns(),
    )


def tokens(request: Any) -> int:
    """How many tokens it is taken to have at most."""
    lines = [PriceEntry("m", task, "p", A_DOLLAR_A_TOKEN) for task in ("chat", "embedding")]
    most, known = cost_ceiling(asked(request), Prices(lines))
    assert known
    return int(most)


def chat(*content: Any, **call: Any) -> ChatRequest:
    return ChatRequest.of([{"role": "user", "content": each} for each in content], **{"max_tokens": 1, **call})


def test_a_text_has_no_more_tokens_than_bytes_and_any_request_may_pay_for_the_check() -> None:
    check = 2 * sum(len(text.encode()) for text in CANARIES)
    assert tokens(EmbedRequest(["ab"])) == 2 + check
    assert tokens(EmbedRequest(["ab", "é", "\U0001f600"])) == 2 + 2 + 4 + check


def test_a_conversation_has_its_bytes_16_tokens_a_message_and_4096_an_image() -> None:
    assert tokens(chat("abcd")) == 16 + 4 + 1
    assert tokens(chat("abcd", "é")) == 16 + 4 + 16 + 2 + 1
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert tokens(chat([{"type": "text", "text": "abcd"}, image, image])) == 16 + 4 + 2 * 4096 + 1


def test_tools_calls_and_a_form_of_the_answer_are_part_of_the_input() -> None:
    def size(value: Any) -> int:
        return len(json.dumps(value, ensure_ascii=False).encode())

    plain = tokens(chat("abcd"))
    tool = {
        "type": "function",
        "function": {"name": "look_up", "description": "sucht, auch in Körben", "parameters": {}},
    }
    request = chat("abcd", tools=[tool])
    assert tokens(request) == plain + size(list(request.tools))
    form = {"type": "json_schema", "json_schema": {"name": "ä", "schema": {"type": "object"}}}
    assert tokens(chat("abcd", response_format=form)) == plain + size(form)
    call = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": '{"in": "Körbe"}'}}
    messages = [
        {"role": "user", "content": "abcd"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "xy"},
    ]
    assert tokens(ChatRequest.of(messages, max_tokens=1)) == plain + 16 + size([call]) + 16 + 2


@pytest.mark.parametrize(
    ("call", "output"),
    [
        ({}, 4096),
        ({"max_tokens": 7}, 7),
        ({"extra_body": {"max_tokens": 9}}, 9),
        ({"extra_body": {"max_completion_tokens": 8}}, 8),
        ({"max_tokens": 7, "extra_body": {"max_tokens": 9, "max_completion_tokens": 8}}, 9),
        ({"max_tokens": 7, "extra_body": {"n": 3}}, 21),
        ({"max_tokens": 7, "extra_body": {"n": 1}}, 7),
        ({"extra_body": {"max_tokens": 0.5}}, 1),
        ({"extra_body": {"max_tokens": 2.5}}, 2),
        ({"extra_body": {"max_tokens": 0}}, 4096),
        ({"extra_body": {"max_tokens": True}}, 4096),
        ({"extra_body": {"max_tokens": "9"}}, 4096),
    ],
    ids=str,
)
def test_an_answer_has_as_many_tokens_as_its_largest_limit_allows(call: dict[str, Any], output: int) -> None:
    assert tokens(ChatRequest.of("abcd", **call)) == 16 + 4 + output


def test_where_time_is_paid_for_a_call_is_taken_to_last_as_long_as_it_may() -> None:
    prices = Prices([PriceEntry("m", provider="p", price=Price(second=Decimal(2)))])
    assert cost_ceiling(asked("a"), prices) == (Decimal(120), True)


def test_the_dearest_target_is_reserved_for_and_one_whose_price_nobody_knows_is_told_of() -> None:
    def line(provider: str, price: str) -> PriceEntry:
        return PriceEntry("m", provider=provider, price=Price(Decimal(price), Decimal(price)))

    prices = Prices([line("p", "1"), line("q", "3"), line("r", "2"), line("free", "0")])
    p, q, r, free, unknown = (hf("m", name) for name in ("p", "q", "r", "free", "x"))
    local = Target("local", model="m")
    tokens = 16 + 1 + 1
    assert cost_ceiling(asked("a", p, q, r), prices) == (Decimal("0.000003") * tokens, True)
    assert cost_ceiling(asked("a", local, p, free), prices) == (Decimal("0.000001") * tokens, True)
    assert cost_ceiling(asked("a", unknown, p), prices) == (Decimal("0.000001") * tokens, False)
    assert cost_ceiling(asked("a", local, free), prices) == (Decimal(0), True)
    assert cost_ceiling(asked("a", local, unknown), prices) == (Decimal(0), False)
    # A price for one part alone tells nothing of the whole.
    half = Prices([line("p", "1"), PriceEntry("m", provider="q", price=Price(Decimal(3)))])
    assert cost_ceiling(asked("a", p, q), half) == (Decimal("0.000001") * tokens, False)
    assert cost_ceiling(asked("a", q), half) == (Decimal(0), False)


def test_a_calls_own_model_is_reserved_for_at_the_targets_that_take_it_over() -> None:
    def line(model: str, price: str) -> PriceEntry:
        return PriceEntry(model, provider="p", price=Price(Decimal(price), Decimal(price)))

    prices = Prices([line("m", "1"), line("own", "3"), line("fixed", "2")])
    request = ChatRequest.of("a", model="own", max_tokens=1)
    tokens = 16 + 1 + 1
    assert cost_ceiling(asked(request, hf("m", "p")), prices)[0] == Decimal("0.000003") * tokens
    assert cost_ceiling(asked(request, hf("fixed", "p")), prices)[0] == Decimal("0.000002") * tokens
    assert cost_ceiling(asked("a", hf("m", "p")), prices)[0] == Decimal("0.000001") * tokens


# The parts of a price


def test_a_price_says_what_it_knows() -> None:
    assert (Price().is_known, Price().is_free) == (False, False)
    assert (Price(Decimal(0)).is_known, Price(Decimal(0)).is_free) == (True, True)
    for part in ("input", "output", "cached", "image", "second"):
        price = Price(**{part: Decimal(1)})
        assert (price.is_known, price.is_free) == (True, False), part
    assert Price().amount("chat", Usage(1, 1)) is None
    assert Price(Decimal(0)).amount("chat", Usage()) == 0


def test_time_is_paid_with_the_images_and_instead_of_the_tokens() -> None:
    second, image, token = Decimal("0.5"), Decimal("0.25"), Decimal(1_000_000)
    assert Price(second=second).amount("chat", Usage(), 2.0000004) == Decimal("1.0")
    assert Price(second=second, input=token).amount("chat", Usage(7, 7), 3.0) == Decimal("1.5")
    assert Price(second=second, image=image).amount("text-to-image", Usage(images=2), 2.0) == Decimal("1.5")
    assert Price(second=second).amount("text-to-image", Usage(images=2), 2.0) == Decimal("1.0")
    assert Price(second=Decimal("0.000001")).amount("chat", Usage(), 0.3333337) == Decimal("0.000000333334")


def test_images_are_paid_beside_the_words_that_describe_them() -> None:
    price = Price(input=Decimal(1_000_000), output=Decimal(0), image=Decimal("0.25"))
    assert price.amount("text-to-image", Usage(3, 5, images=2)) == Decimal("3.5")
    assert price.amount("text-to-image", Usage(3, 5)) == 3
    assert price.amount("text-to-image", Usage(images=2)) is None
    assert Price(image=Decimal("0.25")).amount("text-to-image", Usage(3, 5)) is None


def test_cached_input_is_no_part_of_what_is_paid_in_full() -> None:
    price = Price(Decimal(3_000_000), Decimal(0), Decimal(1_000_000))
    assert price.amount("chat", Usage(10, 0, 4)) == 6 * 3 + 4
    assert price.amount("chat", Usage(10, 0, 0)) == price.amount("chat", Usage(10, 0)) == 30
    assert price.amount("chat", Usage(4, 0, 4)) == 4
    assert price.amount("chat", Usage(None, 0, 4)) is None
    free_cache = Price(Decimal(3_000_000), Decimal(0), Decimal(0))
    assert free_cache.amount("chat", Usage(10, 0, 4)) == 18


def test_a_model_is_found_by_its_name_in_any_case_and_its_task_by_each_of_its_names() -> None:
    price = Price(Decimal(1), Decimal(1))
    for kept, wanted in (
        ("text-generation", "chat"),
        ("chat", "text-generation"),
        ("conversational", "chat"),
        ("image-text-to-text", "chat"),
        ("feature-extraction", "embedding"),
        ("sentence-similarity", "embedding"),
    ):
        prices = Prices([PriceEntry("Org/M", kept, "p", price)])
        found = prices.of(hf("org/m", "p"), wanted)
        assert found is not None, (kept, wanted)
        assert found.price == price
        assert prices.of(hf("org/m", "p"), "embedding" if wanted != "embedding" else "chat") is None


@pytest.mark.parametrize("policy", [None, "auto", "cheapest", "fastest", "preferred"])
def test_where_the_router_chooses_all_that_it_may_choose_count(policy: str | None) -> None:
    def offer(provider: str, price: int, output: int | None = None) -> PriceEntry:
        return PriceEntry(
            "m", provider=provider, price=Price(Decimal(price), Decimal(output or price)), source="router"
        )

    alike, different = Prices([offer("a", 1), offer("b", 1)]), Prices([offer("a", 1, 4), offer("b", 2, 3)])
    found = alike.of(hf("m", policy), "chat")
    assert found is not None
    assert found.price == Price(Decimal(1), Decimal(1)) == alike.dearest(hf("m", policy), "chat")
    assert different.of(hf("m", policy), "chat") is None
    assert different.dearest(hf("m", policy), "chat") == Price(Decimal(2), Decimal(4))
    # One that is no provider of the router's is none that it chooses.
    by_hand = Prices([offer("a", 1), PriceEntry("m", provider="b", price=Price(Decimal(9), Decimal(9)))])
    found = by_hand.of(hf("m", policy), "chat")
    assert found is not None
    assert found.price.input == 1


def test_a_price_for_any_provider_counts_where_the_router_offers_none() -> None:
    anyone = PriceEntry("m", price=Price(Decimal(5), Decimal(5)))
    found = Prices([anyone]).of(hf("m"), "chat")
    assert found is not None
    assert (found.price, found.source) == (anyone.price, "configured")
    offer = PriceEntry("m", provider="a", price=Price(Decimal(1), Decimal(1)), source="router")
    found = Prices([anyone, offer]).of(hf("m"), "chat")
    assert found is not None
    assert (found.price, found.source) == (offer.price, "router_price")
    pinned = dataclasses.replace(anyone, pinned=True)
    found = Prices([offer, pinned]).of(hf("m"), "chat")
    assert found is not None
    assert (found.price, found.source) == (anyone.price, "configured")
    # Set by hand for one provider, it is not the price of another.
    of_one = PriceEntry("m", provider="b", price=Price(Decimal(7), Decimal(7)), pinned=True)
    found = Prices([offer, of_one]).of(hf("m"), "chat")
    assert found is not None
    assert found.price == offer.price


def test_of_several_prices_the_one_set_by_hand_goes_first_then_the_routers_then_the_providers_own() -> None:
    def line(price: int, provider: str | None = None, **facts: Any) -> PriceEntry:
        return PriceEntry("m", provider=provider, price=Price(Decimal(price), Decimal(price)), **facts)

    lines = [line(4), line(3, "p"), line(2, "p", source="router"), line(1, pinned=True)]
    for first in range(4):
        for order in (lines[: 4 - first], lines[: 4 - first][::-1]):
            found = Prices(order).of(hf("m", "p"), "chat")
            assert found is not None
            assert found.price.input == [1, 2, 3, 4][first]


def test_the_dearest_of_several_has_each_part_that_one_of_them_has_and_no_cheaper_cache() -> None:
    def offer(provider: str, **parts: Any) -> PriceEntry:
        return PriceEntry(
            "m", provider=provider, price=Price(**{k: Decimal(v) for k, v in parts.items()}), source="router"
        )

    offers = [
        offer("a", input=1, output=4, cached="0.5"),
        offer("b", input=2, output=3, image=1),
        offer("c", input=1, output=1, second=1, image=2),
    ]
    for order in (offers, offers[::-1]):
        assert Prices(order).dearest(hf("m"), "chat") == Price(Decimal(2), Decimal(4), None, Decimal(2), Decimal(1))


def test_a_servers_price_for_a_model_goes_before_its_price_for_all() -> None:
    target = Target("openai", url="https://api.example.com/v1", model="m")
    of_all = PriceEntry("*", provider=target.label, price=Price(Decimal(1), Decimal(1)), pinned=True)
    of_one = PriceEntry("m", provider=target.label, price=Price(Decimal(2), Decimal(2)))
    elsewhere = PriceEntry("m", provider="openai:https://other.example.com/v1", price=Price(Decimal(9), Decimal(9)))
    for lines, expected in (([of_all, of_one, elsewhere], 2), ([of_all, elsewhere], 1)):
        found = Prices(lines).of(target, "chat")
        assert found is not None
        assert found.price.input == expected
    assert Prices([elsewhere]).of(target, "chat") is None
    assert Prices([elsewhere]).dearest(target, "chat") is None
    # What stands for all of a server is no price at the router.
    assert Prices([PriceEntry("*", price=Price(Decimal(1), Decimal(1)))]).of(hf("m", "p"), "chat") is None


@pytest.mark.parametrize(
    ("target", "own"),
    [
        (Target("local", model="m"), True),
        (Target("hash"), True),
        (Target("tei", url="https://tei.example.com"), True),
        (Target("ollama", model="llama3.1"), True),
        (Target("ollama", model="m", url="http://ollama.example.com:11434"), True),
        (Target("ollama", model="m", url="https://ollama.com"), False),
        (Target("ollama", model="m", url="https://api.ollama.com"), False),
        (Target("ollama", model="gpt-oss:120b-cloud"), False),
        (Target("ollama", model="gpt-oss:cloud"), False),
        (Target("ollama", model="cloud"), True),
        (hf("m"), False),
        (Target("endpoint", url="http://127.0.0.1:8080"), False),
        (Target("elsewhere", url="http://127.0.0.1:8080"), False),
        *(
            (Target("openai", model="m", url=f"http://{host}/v1"), True)
            for host in (
                "127.0.0.1:8000", "10.0.0.7", "192.168.1.1", "172.16.0.1", "169.254.1.1", "[::1]:8000", "[fe80::1]", "vllm",
                "localhost:8000", "a.localhost", "box.local", "llm.internal", "box.lan", "box.home.arpa", "llm.default.svc",
                "llm.test",
            )
        ),
        *(
            (Target("openai", model="m", url=f"http://{host}/v1"), False)
            for host in ("8.8.8.8", "[2606:4700::1111]", "api.example.com", "local.example.com", "lan.example")
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_runs_on_ones_own_machines_costs_nothing(target: Target, own: bool) -> None:
    assert is_own(target) is own
    assert (Prices().of(target, "chat") is not None) is own


def test_a_call_of_ours_is_priced_without_an_import_of_any_task() -> None:
    program = """
import sys
from decimal import Decimal
from hf_gateway.ledger.cost import cost_of
from hf_gateway.ledger.prices import Price, PriceEntry, Prices
from hf_gateway.observing.record import AttemptRecord
from hf_gateway.values.target import Target
from hf_gateway.values.usage import Usage

prices = Prices([PriceEntry("m", task, "p", Price(Decimal(1), Decimal(1))) for task in ("chat", "embedding")])
attempt = AttemptRecord(Target("hf", model="m", provider="p"), "served", usage=Usage(1_000_000, 0))
for task in ("chat", "embedding"):
    assert cost_of(attempt, task, prices) == (Decimal(1), "configured")
assert not [name for name in sys.modules if name.startswith(("hf_gateway.tasks", "hf_gateway.settings.chat"))]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
