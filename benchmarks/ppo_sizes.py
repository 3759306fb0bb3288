"""Rounds of PPO at the sizes of users on a GPU, ours and TRL 1.12's: ``ppo.py --device cuda``.

Each model has a process of its own, or two where TRL runs beside ours (ppo_cuda.py), one after the
other. What is known is printed after each, so that a run which is cut off loses only the last.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peer import peer_python

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).with_name("ppo_cuda.py")
SIZES = {"cuda": ("0.5b", "1.5b"), "cpu": ("tiny",)}
VOCABULARIES = {"cuda": (32000, 151936), "cpu": (500,)}
#: TRL 1.12's round in docs/gpu.md, on an H200, in seconds: the mean of two.
STATED = {"0.5b/32000/full": (8.0 + 8.8) / 2, "0.5b/32000/lora": (16.3 + 13.9) / 2}


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("rounds at larger sizes (--device)")
    group.add_argument("--device", choices=["cuda", "cpu"], help="cpu: tiny models, for a try")
    group.add_argument("--models", nargs="*", help="such as 0.5b/32000/lora; all without it")
    group.add_argument(
        "--trl",
        default="none",
        help="own: TRL 1.12 in an environment of its own; none; or a folder with its package, to "
        "be put before the packages of this environment",
    )
    group.add_argument("--rounds", type=int, default=3, help="the last one counts")
    group.add_argument("--scale", type=float, default=1.0, help="of the responses' 256 tokens")
    group.add_argument("--seconds", type=float, default=600, help="most that one model may take")


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of each model by its name."""
    device = options.device
    names = options.models or [
        f"{size}/{vocabulary}/{how}"
        for size in SIZES[device]
        for vocabulary in VOCABULARIES[device]
        for how in ("full", "lora")
    ]
    result: dict[str, Any] = {}
    for name in names:
        ours = _run("ours", name, options)
        peer_row = {} if options.trl == "none" else _run("trl", name, options).get("trl", {})
        result[name] = metrics_of(name, ours.get("ours", {}), ours.get("hf", {}), peer_row)
        print(json.dumps({name: result[name]}), flush=True)
    return result


def metrics_of(
    name: str, ours: dict[str, Any], hf: dict[str, Any], trl: dict[str, Any]
) -> dict[str, Any]:
    """Return a model's figures from what its processes said; None for what is not known."""
    if not ours:
        return {"failed": "no round was finished"}
    seconds = _seconds(ours)
    against, peer = None, None
    if trl:
        against, peer = "TRL 1.12, measured beside it", _seconds(trl)
    elif name in STATED and ours["device"].startswith("NVIDIA H200"):
        against, peer = "TRL 1.12's round of docs/gpu.md on an H200, a constant", STATED[name]
    rate = hf.get("generate_tokens_per_second")
    return {
        "total": None if peer is None else peer / seconds,
        "total_against": against,
        "seconds": seconds,
        "peer_seconds": peer,
        "learning_share_of_peak": ours["learning_share_of_peak"],
        "sampling_tokens_per_second": ours["sampling_tokens_per_second"],
        "generation": None if rate is None else ours["sampling_tokens_per_second"] / rate,
        "peak_gib": ours["peak_gib"],
        "sampling": ours["sampling"],
        "scoring": ours["scoring"],
        "learning": ours["learning"],
        "first_round": ours["first_round"],
        "peak_tflops": ours["peak_tflops"],
        "device": ours["device"],
    }


def _seconds(row: dict[str, Any]) -> float:
    return float(row["sampling"] + row["scoring"] + row["learning"])


def _run(who: str, name: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the lines of figures that a process printed, by who did the work."""
    python, environment = _interpreter(who, options.trl)
    if options.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [str(python), str(WORKER), who, str(options.rounds), str(options.scale)]
    lines: dict[str, dict[str, Any]] = {}
    with subprocess.Popen(
        ["timeout", str(options.seconds), *command, name.replace("/", ":")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            if line.startswith('{"who"'):
                row = json.loads(line)
                lines[row.pop("who")] = row
    return lines


def _interpreter(who: str, trl: str) -> tuple[Path, dict[str, str]]:
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if who == "trl" and trl == "own":
        return peer_python(), environment
    before = [str(Path(trl).resolve())] if who == "trl" else []
    path: Sequence[str] = [*before, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return Path(sys.executable), environment | {"PYTHONPATH": os.pathsep.join(path)}
