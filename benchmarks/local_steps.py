"""Where the time of a model in this process goes: `python -m benchmarks.local_steps [--kinds mixed chunk] [--tokens 2048]`.

For each kind of text: how many of the computed tokens are padding, and the time to tokenise, to fill the arrays, to run the
graph, to pool, and to make lists; the least of the rounds, each step by itself. Then the share that the graph's products reach of
what products of the same sizes do alone in the same minutes, and the graph's own time by kind of operator, as OpenVINO counts it.

On one processor (`taskset -c 0 python -m …`) it is CPU time, for which other work on the machine counts for little.
"""

import argparse
import collections
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import local as peaks
from benchmarks.harness import texts
from benchmarks.harness.bench import MODEL
from benchmarks.harness.environments import NotRun
from benchmarks.local import COUNTS, HIDDEN, INNER, LAYERS, PRECISIONS, REPEATS, ROWS, folder_of_model

ROUNDS = 7
SHOWN = 9
"""Kinds of operators that are shown."""


ONE_PROCESSOR = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 1


def least(work: Callable[[], Any]) -> float:
    """Return the least seconds of the rounds."""
    # Several threads wait for each other by spinning, so that their CPU time would say nothing.
    clock = time.process_time if ONE_PROCESSOR else time.perf_counter
    taken = []
    for _ in range(ROUNDS):
        began = clock()
        work()
        taken.append(clock() - began)
    return min(taken)


def steps(engine: Any, kind: texts.Kind, tokens: int, products_peak: float) -> list[Any]:
    """Print the padding, the seconds of each step, and what the graph's products reach of the peak; returns the batches.

    Args:
        engine: the loaded model.
        kind: of texts.
        tokens: of a batch.
        products_peak: in operations a second.
    """
    from hf_gateway.engines import encoder as encoders
    from hf_gateway.values.vectors import Vectors

    encoder, given = engine._encoder, texts.texts(kind, COUNTS[kind])
    encoders.BATCH_TOKENS = tokens
    found = encoder.tokeniser.tokens(given)
    batches = list(encoder._batches(given, "", True))
    outputs: list[Any] = []
    for batch in batches:
        encoder.runner.run(batch, lambda hidden: outputs.append(hidden.copy()))
    pooled = [encoder.head(hidden, batch.mask) for hidden, batch in zip(outputs, batches, strict=True)]
    computed, needed = sum(batch.ids.size for batch in batches), sum(map(len, found))
    taken = {
        "tokenise": least(lambda: encoder.tokeniser.tokens(given)),
        "tokenise and fill the arrays": least(lambda: list(encoder._batches(given, "", True))),
        "graph": least(lambda: [encoder.runner.run(batch, lambda _: None) for batch in batches]),
        "pool": least(lambda: [encoder.head(*each) for each in zip(outputs, [b.mask for b in batches], strict=True)]),
        "lists": least(lambda: [Vectors.from_bytes(rows.tobytes(), rows.shape[1]).tolist() for rows in pooled]),
        "all, tokenising beside the graph": least(lambda: encoder.encode(given)),
    }
    print(
        f"{kind}: {len(given)} texts, {needed:,} tokens and {1 - needed / computed:.1%} padding in {len(batches)} batches"
    )
    for step, seconds in taken.items():
        print(f"  {step:<32}{seconds * 1000:>9.2f} ms{seconds / len(given) * 1e6:>9.0f} µs a text")
    rate = computed * LAYERS * 2.0 * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER) / taken["graph"]
    print(
        f"  the layers' products, padding included: {rate / 1e9:,.0f} GFLOP/s, {rate / products_peak:.0%} of the peak"
    )
    return batches


def operators(precision: str, batches: Sequence[Any]) -> None:
    """Print the graph's time by kind of operator, in milliseconds by the clock and as a share."""
    import openvino

    from hf_gateway.engines.networks.build import build_network
    from hf_gateway.engines.networks.openvino_writer import OpenVinoWriter

    writer = OpenVinoWriter(openvino)
    graph = writer.model(build_network(Path(folder_of_model()), writer), "counted")
    config = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision], "PERF_COUNT": True}
    compiled = openvino.Core().compile_model(graph, "CPU", config)
    request = compiled.create_infer_request()
    names = [
        next(iter({"input_ids", "attention_mask", "token_type_ids"} & set(port.names))) for port in compiled.inputs
    ]
    spent: collections.Counter[str] = collections.Counter()
    for batch in batches:
        fed = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.types}
        rounds: list[collections.Counter[str]] = []
        for _ in range(ROUNDS):
            request.infer([fed[name] for name in names], share_inputs=True, share_outputs=True)
            counted: collections.Counter[str] = collections.Counter()
            for node in request.profiling_info:
                if node.real_time.total_seconds():
                    counted[f"{node.node_type} ({node.exec_type})"] += node.real_time.total_seconds()
            rounds.append(counted)
        spent += min(rounds, key=lambda each: sum(each.values()))
    whole = sum(spent.values())
    for name, seconds in spent.most_common(SHOWN):
        print(f"  {name:<44}{seconds * 1000:>9.2f} ms{seconds / whole:>7.1%}")


def peak(precision: str) -> float:
    """Return the operations a second of the products of this model's sizes, by OpenVINO alone."""
    shapes = [[ROWS, HIDDEN, HIDDEN]] * 4 + [[ROWS, HIDDEN, INNER], [ROWS, INNER, HIDDEN]]
    multiply = peaks.matmul_openvino(PRECISIONS[precision], shapes, REPEATS).alone
    assert multiply is not None
    multiply()
    return REPEATS * sum(2.0 * m * k * n for m, k, n in shapes) / least(multiply)


def main() -> None:
    """Print a breakdown for each kind of text."""
    from hf_gateway import Gateway, Target
    from hf_gateway.engines.encoder import BATCH_TOKENS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="*", default=list(COUNTS), choices=list(COUNTS))
    parser.add_argument("--dtype", choices=["fp32", "bf16"], help="by default what the engine chooses")
    parser.add_argument(
        "--tokens", type=int, nargs="*", default=[BATCH_TOKENS], help="tokens of a batch, padding included"
    )
    chosen = parser.parse_args()
    options = {"engine": "openvino"} | ({"dtype": chosen.dtype} if chosen.dtype else {})
    gateway = Gateway(MODEL, [Target("local", options=options)])
    gateway.embed(["the first one loads the model"])
    engine = gateway.candidates[0].ability.engine()  # type: ignore[attr-defined]
    best = peak(engine.precision)
    print(f"{engine.name} {engine.precision}; products of this model's sizes alone: {best / 1e9:,.0f} GFLOP/s")
    for kind in chosen.kinds:
        for tokens in chosen.tokens:
            print(f"batches of {tokens} tokens")
            batches = steps(engine, kind, tokens, best)
        operators(engine.precision, batches)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotRun as failure:
        sys.exit(str(failure))
