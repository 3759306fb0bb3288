"""What do two processes bring on two cores, and what memory does each take? Measured on a CPU.

    python benchmarks/scaling.py                          # at most 8 minutes on two quiet cores
    python benchmarks/scaling.py --write docs/scale.md    # and put the table into the page
    python benchmarks/scaling.py --scale 0.1 --rounds 1   # for a look

Each stage makes a whole artefact from a random model of 5 million parameters (of the kind of Qwen3,
in float32, all weights trained): by one process of one thread, by two processes of one thread each
(DDP over gloo, as `--launch ddp` starts them), and by one process of two threads. These take turns.
Trainings are done once more, in the first round, by two processes that share the weights (FSDP2, or
what --sharding names).
Seconds are those of the stage's function, from when all its processes have met until all are done;
the shortest of the rounds is shown. Memory is the largest resident memory of each process (VmHWM of
Linux) beyond what it had at that moment: Python and the libraries.

Progress goes to stderr. The last line is one JSON object: for each stage and way the seconds of all
rounds, the memory of each process in MiB, and how many times faster than one process it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

MIB = 2**20
IN_SHARES = "2 in shares"
#: Ways by name: processes, and threads of each.
WAYS = {"1 process": (1, 1), "2 processes": (2, 1), "1 with 2 threads": (1, 2), IN_SHARES: (2, 1)}
TRAININGS = ("sft", "reward", "dpo", "kto", "ppo")
PROMPT, ANSWER = 64, 64
BEGIN, END = "<!-- scaling.py: begin -->", "<!-- scaling.py: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of steps, responses and rows")
    parser.add_argument("--stages", default=",".join(STAGES), help="some of them")
    parser.add_argument("--minutes", type=float, default=8.0, help="no round that goes beyond")
    parser.add_argument(
        "--sharding", default="fsdp2", help="how two processes share: or zero2, zero3"
    )
    parser.add_argument("--write", type=Path, help="a page with a place for the table")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # freed tensors go back to the system
    with tempfile.TemporaryDirectory() as folder:
        stages = options.stages.split(",")
        result = measure(
            Path(folder), stages, options.rounds, options.scale, options.minutes, options.sharding
        )
    table = markdown(result)
    print(table, file=sys.stderr)
    if options.write is not None:
        page = options.write.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        after = rest.split(END)[1]
        options.write.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    print(json.dumps(result))


def measure(
    folder: Path, stages: list[str], rounds: int, scale: float, minutes: float, sharding: str
) -> dict[str, Any]:
    """Return the figures of each stage by way, of as many rounds as there are minutes for."""
    from benchmarks.scaling import timed  # under this name the processes find it
    from plumbline.runs.isolation import run_isolated
    from plumbline.runs.progress import Reporter

    make_inputs(folder, scale)
    result: dict[str, Any] = {
        name: {
            way: {"seconds": [], "mib": []} for way in WAYS if way != IN_SHARES or name in TRAININGS
        }
        for name in stages
    }
    started = time.monotonic()
    for turn in range(rounds):
        if turn and (time.monotonic() - started) * (turn + 1) / turn > 60 * minutes:
            print(f"{turn} of {rounds} rounds: there was no time for more", file=sys.stderr)
            break
        for name in stages:
            for way, metrics in result[name].items():
                if way == IN_SHARES and turn:
                    continue
                processes, threads = WAYS[way]
                place = folder / f"{turn}-{name}-{way.replace(' ', '-')}"
                outcome = run_isolated(
                    timed,
                    place,
                    {"name": name, "inputs": str(folder), "scale": scale},
                    Reporter(quiet=True),
                    lambda: None,
                    threads,
                    processes,
                    sharding if way == IN_SHARES else None,
                )
                metrics["seconds"].append(round(float(outcome.metrics["seconds"] or 0), 3))
                metrics["mib"] = [
                    max(old, round(float(outcome.metrics[f"mib-{n}"] or 0)))
                    for n, old in enumerate(metrics["mib"] or [0] * processes)
                ]
                print(name, way, metrics, file=sys.stderr, flush=True)
    for ways in result.values():
        alone = min(ways["1 process"]["seconds"])
        for metrics in ways.values():
            metrics["times_faster"] = round(alone / min(metrics["seconds"]), 2)
    return result


def markdown(result: Mapping[str, Any]) -> str:
    """Return the table of a page: seconds, and the memory of each process."""
    ways = list(WAYS)
    lines = [
        f"| stage | {' | '.join(ways)} | times faster with 2 | MiB of {' | MiB of '.join(ways)} |",
        "|---|" + "---|" * (2 * len(ways) + 1),
    ]
    for name, by_way in result.items():
        seconds = [f"{min(by_way[way]['seconds']):.1f} s" if way in by_way else "" for way in ways]
        mib = [" + ".join(map(str, by_way[way]["mib"])) if way in by_way else "" for way in ways]
        faster = f"{by_way['2 processes']['times_faster']:.2f}"
        lines.append(f"| {' | '.join([LABELS[name], *seconds, faster, *mib])} |")
    return "\n".join(lines)


def timed(stage: Any, *, name: str, inputs: str, scale: float) -> dict[str, float]:
    """Make what a stage makes; return its seconds and the memory of each process in MiB."""
    from benchmarks.memory_plan import memory
    from plumbline.quiet import silence_libraries
    from plumbline.runs.processes import of_all_processes

    silence_libraries()
    # Before the clock starts.
    import evaluation.evaluate  # noqa: F401
    import preference.dpo
    import preference.kto  # noqa: F401
    import rl.ppo  # noqa: F401
    import sft.train  # noqa: F401

    of_all_processes(0)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins again
    started = time.perf_counter()
    STAGES[name](stage, Path(inputs), scale)
    of_all_processes(0)
    seconds = time.perf_counter() - started
    peaks = of_all_processes((memory("VmHWM") - before) / MIB)
    return {"seconds": seconds, **{f"mib-{n}": peak for n, peak in enumerate(peaks)}}


# --- What the stages read. ------------------------------------------------------------------------


def make_inputs(folder: Path, scale: float) -> None:
    """Save the models and the rows that all stages read."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

    from benchmarks.ppo_workers import SHAPE, _tokenizer
    from plumbline.data.records import assistant, user, write_dataset
    from plumbline.lm.chat import DEFAULT_TEMPLATE

    tokenizer = _tokenizer()
    tokenizer.chat_template = DEFAULT_TEMPLATE
    shape = SHAPE | {"head_dim": 64, "tie_word_embeddings": True, "eos_token_id": 1}
    for kind, name in ((Qwen3ForCausalLM, "policy"), (Qwen3ForSequenceClassification, "reward")):
        torch.manual_seed(0)
        config = Qwen3Config(**shape, **({"num_labels": 1} if name == "reward" else {}))
        kind(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    generator = torch.Generator().manual_seed(0)

    def text(tokens: int) -> str:
        drawn = torch.randint(2, SHAPE["vocab_size"], (tokens,), generator=generator)
        return " ".join(f"w{number}" for number in drawn.tolist())

    rows = [
        {
            "pair_id": str(n),
            "prompt": [user(text(PROMPT))],
            "chosen": [assistant(text(ANSWER))],
            "rejected": [assistant(text(ANSWER))],
        }
        for n in range(max(16, int(128 * scale)))
    ]
    messages: list[Any] = [
        {"messages": [*row["prompt"], *row["chosen"]], "form": "single_turn"} for row in rows
    ]
    for name, lines, kind in (("pairs", rows, "preference"), ("rows", messages, "messages")):
        split = {"train": lines, "test": lines[:4]}
        write_dataset(folder / name, split, kind=kind, title="", description="")  # type: ignore[arg-type]


def artifact(path: Path) -> Any:
    """Return a folder that stands for an artefact."""
    from benchmarks.stages import Folder

    return Folder(path)


def prompts_in(inputs: Path, count: int) -> list[Any]:
    """Return the first prompts of the rows, again and again if there are not so many."""
    from plumbline.data.records import read_dataset

    rows = read_dataset(inputs / "pairs", "train")
    return [rows[n % len(rows)]["prompt"] for n in range(count)]


def training_of(scale: float, steps: int, rows: int) -> Any:
    from plumbline.training.config import TrainingConfig

    count = max(1, round(steps * scale))
    return TrainingConfig(
        max_steps=count, batch_size=rows, log_every=count, checkpoint_every=count,
        learning_rate=1e-4,
    )  # fmt: skip


def full() -> Any:
    from plumbline.lm.tuning import TuningConfig

    return TuningConfig(method="full")


def no_figures(*_: Any) -> dict[str, float]:
    """Judge nothing."""
    return {}


# --- The stages. ----------------------------------------------------------------------------------


def fine_tune(stage: Any, inputs: Path, scale: float) -> None:
    from sft.config import SFTConfig
    from sft.train import train_sft

    config = SFTConfig(tuning=full(), training=training_of(scale, 3, 16))
    data = artifact(inputs / "rows")
    train_sft(stage, config=config, base=artifact(inputs / "policy"), demonstrations=data, seed=0)


def learn_reward(stage: Any, inputs: Path, scale: float) -> None:
    from reward.config import RewardConfig
    from reward.train import train_reward_model

    config = RewardConfig(tuning=full(), training=training_of(scale, 3, 8))
    data = artifact(inputs / "pairs")
    policy = artifact(inputs / "policy")
    train_reward_model(stage, config=config, policy=policy, preferences=data, seed=0)


def learn_pairs(stage: Any, inputs: Path, scale: float) -> None:
    from preference.config import DPOConfig
    from preference.dpo import train_dpo

    config = DPOConfig(tuning=full(), training=training_of(scale, 3, 8), evaluations=0)
    inputs_of = {"policy": artifact(inputs / "policy"), "preferences": artifact(inputs / "pairs")}
    train_dpo(stage, config=config, **inputs_of, hook=no_figures, seed=0)


def learn_labels(stage: Any, inputs: Path, scale: float) -> None:
    from preference.config import KTOConfig
    from preference.kto import train_kto

    config = KTOConfig(tuning=full(), training=training_of(scale, 3, 16), evaluations=0)
    inputs_of = {"policy": artifact(inputs / "policy"), "labels": artifact(inputs / "pairs")}
    train_kto(stage, config=config, **inputs_of, hook=no_figures, seed=0)


def ppo(stage: Any, inputs: Path, scale: float) -> None:
    from plumbline.lm.generation import SamplingConfig
    from reward.scorer import RewardModelScorer
    from rl.config import PPOConfig
    from rl.ppo import train_ppo

    responses = max(4, round(32 * scale))
    config = PPOConfig(
        tuning=full(), iterations=1, batch_size=responses, minibatch_size=responses, ppo_epochs=2,
        micro_batch_size=8, evaluations=0, checkpoint_every=1,
        sampling=SamplingConfig(max_new_tokens=ANSWER),
    )  # fmt: skip
    train_ppo(
        stage, config=config, policy=artifact(inputs / "policy"), hook=no_figures, seed=0,
        prompts=prompts_in(inputs, responses), scorer=RewardModelScorer(inputs / "reward"),
    )  # fmt: skip


def sample(stage: Any, inputs: Path, scale: float) -> None:
    from evaluation.tasks.sampling import sample_policy
    from plumbline.lm.generation import SamplingConfig

    count = max(4, round(160 * scale))
    sample_policy(
        stage, policy=artifact(inputs / "policy"), prompts=prompts_in(inputs, count), count=None,
        sampling=SamplingConfig(max_new_tokens=ANSWER), data_seed=0,
    )  # fmt: skip


def score(stage: Any, inputs: Path, scale: float) -> None:
    from preference.pairs_config import RelabelConfig
    from preference.relabel import relabel_preferences
    from reward.scorer import RewardModelScorer

    relabel_preferences(
        stage, config=RelabelConfig(), preferences=artifact(inputs / "pairs"),
        scorers=[RewardModelScorer(inputs / "reward")],
    )  # fmt: skip


def evaluate(stage: Any, inputs: Path, scale: float) -> None:
    from evaluation.config import EvaluationConfig
    from evaluation.evaluate import evaluate_policy
    from evaluation.harness import Harness
    from plumbline.lm.generation import SamplingConfig
    from reward.scorer import RewardModelScorer

    count = max(4, round(64 * scale))
    sampling = SamplingConfig(max_new_tokens=ANSWER)
    config = EvaluationConfig(prompts=count, prompts_during_training=2, sampling=sampling)
    scorers = [RewardModelScorer(inputs / "reward")]
    harness = Harness(config, prompts_in(inputs, count), scorers, data_seed=0)
    policy = artifact(inputs / "policy")
    evaluate_policy(stage, policy=policy, reference=policy, harness=harness, data_seed=0)


STAGES: dict[str, Callable[[Any, Path, float], None]] = {
    "sft": fine_tune,
    "reward": learn_reward,
    "dpo": learn_pairs,
    "kto": learn_labels,
    "ppo": ppo,
    "sampling": sample,
    "scoring": score,
    "evaluation": evaluate,
}
LABELS = {
    "sft": "supervised fine-tuning",
    "reward": "reward model",
    "dpo": "DPO",
    "kto": "KTO",
    "ppo": "PPO",
    "sampling": "sampling",
    "scoring": "scoring of preferences by a reward model",
    "evaluation": "evaluation",
}

if __name__ == "__main__":
    main()
