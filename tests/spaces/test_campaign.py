"""The fault campaign: no schedule mixes two spaces, and each check of the guard is missed when it is taken away."""

import dataclasses
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.spaces import fingerprint, guard
from hf_gateway.spaces.binding import SpaceBinding, SpaceDecision
from hf_gateway.spaces.fingerprint import CANARIES, LONG_CANARIES, Store
from hf_gateway.spaces.guard import Guard
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from hf_gateway.tasks.embedding.index_guard import IndexGuard
from hf_gateway.values.usage import Usage
from tests.campaign import Campaign, Violation
from tests.support.campaign_world import (
    HASH,
    SHUFFLED,
    Call,
    Process,
    Schedule,
    Server,
    Step,
    answer_of,
    drawn,
    spaces_of,
)

SCHEDULES = int(os.environ.get("HF_GATEWAY_TEST_CAMPAIGN", "600"))
PARTS = 4
UNTIL_FOUND = 2000
"""Schedules within which a guard without one of its checks must let something through."""


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    with Campaign(tmp_path / "home") as running:
        yield running


@pytest.mark.parametrize("part", range(PARTS))
def test_one_index_has_one_space_or_an_error_is_raised(
    campaign: Campaign, part: int, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = campaign.run(range(part, SCHEDULES, PARTS))
    with capsys.disabled():
        sys.stderr.write(f"\n[{part + 1}/{PARTS}] {counts}\n")
    assert counts.leaks[1] == 0
    assert counts.vectors > counts.schedules
    assert counts.fallbacks
    assert counts.quarantines


def test_a_schedule_is_the_same_each_time(campaign: Campaign) -> None:
    def facts(seed: int) -> dict[str, Any]:
        schedule = drawn(seed)
        in_turn = tuple(dataclasses.replace(process, at_once=1) for process in schedule.processes)
        return vars(campaign.play(dataclasses.replace(schedule, processes=in_turn)))

    for seed in range(40):
        assert drawn(seed) == drawn(seed)
        assert facts(seed) == facts(seed)


def test_the_oracle_tells_every_kind_of_server_from_the_right_one() -> None:
    texts = ["query: river new", "query: stone new"]
    right = answer_of("right", texts)
    for kind in ("other model", "other dimension", "unnormalised", "cls", "no query prompt", "quantised", SHUFFLED):
        assert answer_of(kind, texts) != right, kind
    assert spaces_of(right[0], "river new", "query: ") == {"right", SHUFFLED}
    assert spaces_of(right[0], "stone new", "query: ") == {SHUFFLED}


def calls(*given: tuple[int, str, tuple[int, ...]], door: str = "core") -> tuple[Step, ...]:
    return tuple(Step((Call(process, door, role, texts),)) for process, role, texts in given)


def faulty(step: Step, *servers: int) -> Step:
    return Step(step.calls, step.together, tuple((server, "401", 99, 0) for server in servers))


# Without a check.


def _admits_all(it: Guard, target: Any) -> Iterator[Any]:
    yield from ()


def _never_rides(it: Guard, target: Any, answer: Any) -> Iterator[Any]:
    yield from ()
    return answer


def _keeps_none(it: Store, own: Any) -> Any:
    return own


ADMIT, COMPARE, RIDE = Guard.check_before_first_use, guard.compare, Guard._run_periodic_canary
ANSWERED, MEASURED = Guard.check_answer, Guard._measure_places


def _ignores_what_it_found(it: Guard, target: Any) -> Iterator[Any]:
    try:
        yield from ADMIT(it, target)
    except errors.Quarantined:
        it.space_check(target).error = None


def _only_documents(it: Guard, target: Any, batches: Any, used: Any) -> Iterator[Any]:
    rows = yield from MEASURED(it, target, batches, used)
    return {"document": rows["document"]}


def _in_any_order(reference: Any, measured: Any, **how: Any) -> Any:
    def ordered(rows: Any) -> Any:
        return {
            role: tuple(sorted((row for row in each if row), key=lambda row: row[0])) for role, each in rows.items()
        }

    return COMPARE(ordered(reference), ordered(measured), **{**how, "cut": True})


def _pins_none(it: Guard, target: Any, answer: Any) -> Iterator[Any]:
    answer = yield from it._run_periodic_canary(target, answer)
    it._pin_fingerprint(target)
    return answer


def _refuses_none(it: Guard, target: Any) -> Any:
    return it.space_check(target).error


def _rides_in_one_role(it: Guard, target: Any, batches: Any, used: Any) -> Iterator[Any]:
    if len(batches) == 1:
        return (yield from _only_documents(it, target, batches, used))
    return (yield from MEASURED(it, target, batches, used))


def _rides_with_one_text(it: Guard, target: Any, batches: Any, used: Any) -> Iterator[Any]:
    return (yield from MEASURED(it, target, [[0]] if len(batches) == 1 else batches, used))


def _takes_the_first_at_its_word(_it: Guard, _target: Any, _rows: Any) -> Generator[Any, Any, Usage]:
    yield from ()
    return Usage(0)


def _forgets_a_canary_that_was_not_answered(it: Guard, target: Any, answer: Any) -> Iterator[Any]:
    try:
        return (yield from RIDE(it, target, answer))
    except errors.GatewayError as error:
        if not isinstance(error, errors.Quarantined):
            standing = it.space_check(target)
            standing.checked_at_request = standing.requests
        raise


def _rides_in_none(it: Guard, target: Any) -> bool:
    return False


def _measures_in_parts(target: Any, batches: Any, used: Any, *, repeat: bool) -> Any:
    return MEASURE(target, batches, used, repeat=False)


def _restores_without_the_decision(it: Guard, binding: Any) -> None:
    BIND(it, dataclasses.replace(binding, decision=None))


def _restores_without_the_pin(it: EmbeddingGateway, binding: Any) -> None:
    BIND_SPACE(it, dataclasses.replace(binding, pinned=None, reference=None, dimension=None))


def _has_no_verdict(it: IndexGuard, result: Any) -> Iterator[Any]:
    yield from ()


def _looks_at_names_only(it: IndexGuard, link: Any) -> None:
    return None


def _believes_what_it_read(it: IndexGuard) -> None:
    return None


BIND, BIND_SPACE, MEASURE = Guard.bind, EmbeddingGateway.bind_space, guard.measure
NO_RIDING: list[tuple[Any, str, Any]] = [(Guard, "_canary_is_due", _rides_in_none)]
"""Without canaries within the requests, so that another check that would find the same is found missing by itself."""

MUTATIONS: dict[str, list[tuple[Any, str, Any]]] = {
    "no check before the first vector": [(Guard, "check_before_first_use", _admits_all)],
    "no comparison of directions": [(fingerprint, "MIN_SAME_COSINE", -2.0)],
    "no comparison of lengths": [(fingerprint, "MAX_NORM_DIFFERENCE", float("inf"))],
    "no pin": [(Guard, "check_answer", _pins_none), (Guard, "refusal", _refuses_none)],
    "not held to the first vector's fingerprint": [(Guard, "_pin_fingerprint", lambda *_: None)],
    "no canary riding along": [(Guard, "_run_periodic_canary", _never_rides)],
    "canary in one role": [(Guard, "_measure_places", _rides_in_one_role)],
    "canary of one text": [(Guard, "_measure_places", _rides_with_one_text)],
    "always its own fingerprint": [(Store, "keep_first", _keeps_none)],
    "refusal ignored": [(Guard, "check_before_first_use", _ignores_what_it_found), (Guard, "refusal", lambda *_: None)],
    "roles not both measured": [(Guard, "_measure_places", _only_documents)],
    "order not noticed": [(guard, "compare", _in_any_order)],
    "order of the first server not checked": [(Guard, "_check_order", _takes_the_first_at_its_word)],
    "canary that failed counts as done": [(Guard, "_run_periodic_canary", _forgets_a_canary_that_was_not_answered)],
    "no canary within requests": NO_RIDING,
    "another server not asked to prove itself": [(guard, "MAX_IDENTITIES", 0)],
    "measured in parts by several servers": [
        (guard, "measure", _measures_in_parts),
        (Guard, "_roles", lambda *_: ("document",)),
    ],
    "copies without the pin": [(EmbeddingGateway, "bind_space", _restores_without_the_pin)],
    "copies decide for themselves": [(Guard, "bind", _restores_without_the_decision)],
    "decision not kept": [(SpaceDecision, "settle", lambda it, space, reference: SpaceBinding(space, reference))],
    "copies bound to nothing": [(EmbeddingGateway, "bind_space", lambda *_: None)],
    "no verdict of the index": [(IndexGuard, "verdict", _has_no_verdict)],
    "index compared by names": [(IndexGuard, "_measured_fingerprint", _looks_at_names_only)],
    "index's lock not read again": [(IndexGuard, "_reread", _believes_what_it_read)],
}


_STEPS = calls(*[(0, "document", (place,)) for place in range(7)])
CANARY_FAILS = Schedule(
    0,
    (Server(becomes="other model", swap_at=3),),
    (Process((0,), canary_every=3, max_retries=0),),
    (*_STEPS[:2], Step(_STEPS[2].calls, faults=((0, "401", 1, 1),)), *_STEPS[3:]),
)
"""Two requests check the server, one is a call; then the model changes, a call leaks, and the canary of the next one fails."""

ALONE = (
    "no check before the first vector",
    "no canary riding along",
    "canary in one role",
    "canary of one text",
    "refusal ignored",
    "roles not both measured",
    "order not noticed",
    "order of the first server not checked",
    "canary that failed counts as done",
)
"""What only shows where requests have no canaries in them."""

_TOLD = (Server(replica="other model", tells=True),)
RARE = {
    "canary that failed counts as done": CANARY_FAILS,
    "not held to the first vector's fingerprint": Schedule(
        0,
        (Server("other model"), Server(files=True)),
        (Process((0, 1)),),
        (calls((0, "document", (0,)))[0], faulty(calls((0, "document", (1,)))[0], 0)),
    ),
    "another server not asked to prove itself": Schedule(
        0, _TOLD, (Process((0,), canary_every=9),), calls(*[(0, "query", (place,)) for place in range(7)])
    ),
    "measured in parts by several servers": Schedule(
        0,
        _TOLD,
        (Process((0,), canary_every=9),),
        calls(*[(0, role, (0,)) for role in ("document", "query") * 3]),
        prompts=True,
    ),
}
"""What chance alone takes thousands of schedules to come upon."""


@pytest.mark.parametrize("without", MUTATIONS)
def test_the_campaign_fails_without(
    without: str, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def schedule(number: int) -> Schedule:
        rare = RARE.get(without)
        found = dataclasses.replace(rare, seed=number) if rare else drawn(number)
        if without not in ALONE:
            return found
        # Without canaries in the requests several servers behind one address are always a violation.
        alike = tuple(dataclasses.replace(server, replica=None) for server in found.servers)
        return dataclasses.replace(found, servers=alike)

    found, played = None, 0
    for owner, name, instead in NO_RIDING if without in ALONE else ():
        monkeypatch.setattr(owner, name, instead)
    with monkeypatch.context() as patch:
        for owner, name, instead in MUTATIONS[without]:
            patch.setattr(owner, name, instead)
        while found is None and played < UNTIL_FOUND:
            played += 1
            try:
                campaign.play(schedule(played))
            except Violation as violation:
                found = violation.what
    assert found is not None, f"{played} schedules, and nobody missed it"
    assert "none of ours" not in found
    campaign.play(schedule(played))  # nobody would miss a check that makes no difference
    with capsys.disabled():
        sys.stderr.write(f"\n{without}: found by schedule {played}: {found}\n")


# The smallest schedules for what the campaign found.


def test_two_names_of_one_model_in_a_chain_are_held_to_one_fingerprint(campaign: Campaign) -> None:
    first, second = calls((0, "document", (0,)), (0, "document", (1,)))
    counts = campaign.play(
        Schedule(
            0, (Server("other model"), Server(pooling="mean")), (Process((0, 1), True),), (first, faulty(second, 0))
        )
    )
    assert counts.refusals["AllTargetsFailed"] == 1


def test_the_models_own_files_do_not_join_a_chain_that_answered_otherwise(campaign: Campaign) -> None:
    first, second, third = calls((0, "document", (0,)), (0, "document", (1,)), (1, "document", (2,)))
    counts = campaign.play(
        Schedule(
            0,
            (Server("other model"), Server(files=True)),
            (Process((0, 1)), Process((0, 1))),
            (first, faulty(second, 0), third),
        )
    )
    assert (counts.refusals["AllTargetsFailed"], counts.takeovers, counts.vectors) == (1, 1, 2)


def test_a_canary_that_could_not_be_asked_is_asked_again_at_once(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*NO_RIDING[0])
    counts = campaign.play(CANARY_FAILS)
    assert counts.leaks[3] == 1
    assert counts.refusals == {"AuthenticationFailed": 1, "Quarantined": 4}


@pytest.mark.parametrize(("becomes", "role"), [("no query prompt", "query"), (SHUFFLED, "document")])
def test_a_lost_prompt_and_a_lost_order_are_noticed_by_the_canary(campaign: Campaign, becomes: str, role: str) -> None:
    steps = calls(*[(0, role, (0,) if role == "query" else (0, 1)) for _ in range(4)])
    counts = campaign.play(
        Schedule(0, (Server(becomes=becomes, swap_at=6),), (Process((0,)),), steps, prompts=role == "query")
    )
    assert counts.swaps
    assert counts.refusals["Quarantined"] >= 1


def test_llamaindex_own_cache_in_a_chain_of_several_spaces(campaign: Campaign) -> None:
    first, second, third = calls((0, "document", (0,)), (1, "document", (1,)), (1, "document", (0,)), door="llamaindex")
    processes = (Process((0, HASH), True, cache="llamaindex"),) * 2
    campaign.play(Schedule(0, (Server(),), processes, (first, faulty(second, 0), third)))


def test_all_canaries_but_the_long_one_ride_along(campaign: Campaign) -> None:
    steps = calls((0, "document", (0,)), (0, "document", (1,)))
    # Two to check, and a call and its canary, twice.
    assert campaign.play(Schedule(0, (Server(),), (Process((0,)),), steps)).requests == 6
    assert len(CANARIES) == LONG_CANARIES + 1


def test_a_pin_to_an_index_holds_each_target_to_the_indexs_name(campaign: Campaign) -> None:
    first, second, third = calls((0, "document", (0,)), (1, "query", (1,)), (2, "document", (2,)))
    servers = (Server("other model"), Server("no query prompt", pooling="mean"))
    processes = (Process((0,), lock=0), Process((0, HASH, 1), True, lock=0), Process((1,), True))
    at_once = Step((*first.calls, *second.calls), together=True)  # both lock the index before it knows a dimension
    campaign.play(Schedule(0, servers, processes, (at_once, third), prompts=True))


def test_copies_decide_for_a_fingerprint_and_not_for_a_name_alone(campaign: Campaign) -> None:
    first, second = calls((1, "document", (0,)), (0, "document", (1,)))
    servers = (Server(), Server("other model", pooling="mean"))
    processes = (Process((0, 1), True), Process((0, 1), True, copy_of=0, way="deepcopy"))
    campaign.play(Schedule(0, servers, processes, (first, faulty(second, 0))))


@pytest.mark.parametrize("seed", range(30))
def test_a_server_that_takes_few_texts_at_once_is_measured_by_one_of_several(campaign: Campaign, seed: int) -> None:
    server = Server(max_texts=5, replica="no query prompt", tells=True)
    steps = calls((0, "query", (7,)), (0, "query", (0,)), (0, "query", (3,)))
    campaign.play(Schedule(seed, (server,), (Process((0,), canary_every=9),), steps, prompts=True))


@pytest.mark.parametrize("cache", ["llamaindex", "ours"])
def test_two_machines_share_no_cached_vectors_of_two_models_under_one_name(campaign: Campaign, cache: str) -> None:
    steps = calls((0, "document", (0,)), (1, "document", (1,)), (1, "document", (0,)), door="llamaindex")
    processes = (Process((0,), cache=cache), Process((1,), cache=cache, home=1))
    campaign.play(Schedule(0, (Server(), Server("other model")), processes, steps))


def test_a_copy_locks_an_index_again_that_was_deleted_before_it_was_made(campaign: Campaign) -> None:
    first, second, third = calls(*[(process, "document", (0,)) for process in range(3)])
    processes = (Process((0,), lock=0), Process((0,), lock=0, copy_of=0, way="deepcopy"), Process((HASH,), lock=0))
    steps = (first, dataclasses.replace(second, wipes=(0,)), third)
    assert campaign.play(Schedule(0, (Server(),), processes, steps)).refusals["SpaceMismatch"] == 1


def test_what_was_kept_under_another_name_of_the_model_is_compared_with_the_index(campaign: Campaign) -> None:
    first, second, third = calls((0, "query", (3,)), (1, "document", (5,)), (1, "document", (5,)))
    servers = (Server("other model", pooling="mean"), Server())
    processes = (Process((0,), True, lock=0), Process((1, 0), True, cache="ours", lock=0))
    assert campaign.play(Schedule(0, servers, processes, (first, second, third))).refusals["SpaceMismatch"] == 2
