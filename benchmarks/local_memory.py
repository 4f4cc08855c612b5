"""Memory of a model in this process: resident after the first call, and the most while loading, in a new process each time.

The network is like XLM-R base, of random weights and with fewer words, so that it is made on the spot and nothing is fetched.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.harness.bench import MODEL, Bench
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate

ROUNDS = 3
LIMIT_S = 300
WORDS = 100_000
"""Rows of the table of words; XLM-R base has 250,002."""
FILES = ("float32", "float16")
RUNTIMES = {
    "OpenVINO, float32": {"engine": "openvino", "dtype": "fp32"},
    "OpenVINO, bfloat16": {"engine": "openvino", "dtype": "bf16"},
    "ONNX Runtime, float32": {"engine": "onnxruntime", "dtype": "fp32"},
}
INT8 = 'weights="int8"'
_MAKE = """
import sys
from pathlib import Path
import torch, transformers
from tests.support.tiny_encoders import tokenizer
folder = Path(sys.argv[1])
words = tokenizer("xlm-roberta", folder / "words", model_max_length=512)
torch.manual_seed(0)
config = transformers.XLMRobertaConfig(vocab_size=int(sys.argv[2]), max_position_embeddings=514, type_vocab_size=1)
network = transformers.XLMRobertaModel(config, add_pooling_layer=False).eval()
for dtype in ("float32", "float16"):
    network.to(getattr(torch, dtype)).save_pretrained(folder / dtype)
    words.save_pretrained(folder / dtype)
print(sum(each.numel() for each in network.parameters()))
"""
_LOAD = """
import json, sys
from hf_gateway import Gateway, Target
with Gateway(sys.argv[1], [Target("local", options=json.loads(sys.argv[2]))]) as gateway:
    gateway.embed(["a text"])
    lines = open("/proc/self/status").read().splitlines()
found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
print(json.dumps({name: int(kib) * 1024 / 1e6 for name, kib in found.items()}))
"""
_WORST = """
import json, sys
from hf_gateway import Gateway, Target
whole, small = ({"engine": sys.argv[2], **more} for more in ({}, {"weights": "int8"}))
for chain in ([whole, small], [small, whole]):  # the first one measures the space, the other is compared with it
    with Gateway(sys.argv[1], [Target("local", options=each) for each in chain], check_space=True) as gateway:
        gateway.embed(["a text"])
        status = gateway.status()[0]
print(json.dumps([status.space_check, status.worst_cosine]))
"""


def run(bench: Bench) -> Report:
    """Measure; the first start of each, which fills caches and compares 8 bits with the whole weights, is not counted."""
    weights = int(_last_line(bench, _MAKE, str(bench.folder), str(WORDS)))
    report = Report(
        f"Memory of a model in this process: a network like XLM-R base with {weights / 1e6:.0f} million weights"
    )
    after, most = Table("Resident after the first call", "MB", None), Table("Most while loading", "MB", None)
    cells = []
    for runtime, options in RUNTIMES.items():
        for dtype, small in product(FILES, (False, True)):
            name = f"{runtime}: file in {dtype}{f', {INT8}' if small else ''}"
            chosen = {**options, **({"weights": "int8"} if small else {})}
            rows = Row(name, ours=True), Row(name, ours=True)
            after.rows.append(rows[0])
            most.rows.append(rows[1])
            cell = Cell(rows[0], _loads(bench, bench.folder / dtype, chosen, rows[1]))
            alternate([cell], 1)
            rows[0].values.clear()
            rows[1].values.clear()
            cells.append(cell)
    alternate(cells, bench.rounds(ROUNDS))
    for row, held in zip(after.rows, most.rows, strict=True):
        held.not_run = row.not_run
    report.tables += [after, most]
    sizes = {dtype: (bench.folder / dtype / "model.safetensors").stat().st_size / 1e6 for dtype in FILES}
    report.notes += [
        f"The file has {sizes['float32']:.0f} MB in float32 and {sizes['float16']:.0f} MB in float16.",
        "Both are told by the system (VmRSS, VmHWM), of a process that embeds one short text, Python and the runtime included.",
    ]
    for name, engine in (("OpenVINO", "openvino"), ("ONNX Runtime", "onnxruntime")):
        found, worst = json.loads(_last_line(bench, _WORST, MODEL, engine))
        report.notes.append(
            f"{MODEL} with {INT8} on {name}: {found} as the space of the whole weights; the worst canary text has a cosine "
            f"of {worst:.4f}."
        )
    return report


def _loads(bench: Bench, folder: Path, options: dict[str, Any], most: Row) -> Callable[[int], float]:
    def measure(number: int) -> float:
        found = json.loads(_last_line(bench, _LOAD, str(folder), json.dumps(options)))
        most.values[number] = found["VmHWM"]
        return float(found["VmRSS"])

    return measure


def _last_line(bench: Bench, program: str, *arguments: str) -> str:
    """Run a program in a process of its own, and return the last line that it prints. Raises NotRun."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=bench.environments.variables(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        raise NotRun((done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1])
    return done.stdout.strip().splitlines()[-1]
