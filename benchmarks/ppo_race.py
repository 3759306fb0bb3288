"""How long PPO takes to TRL 1.12.0's final reward, at no more KL, in the embedded world.

    python benchmarks/ppo_race.py                # three seeds, an hour and a half
    python benchmarks/ppo_race.py --seeds 1 --rounds 8 --home FOLDER

Both sides start from the same files: the quickstart's SFT policy and its reward model, merged
into plain weights, the reward's calibration in its head. Both fine-tune policy and value fully, in
float32, with the same prompts, batch, optimiser steps, learning rate, clips, lambda, KL coefficient
and penalty for a missing end. What differs is the code. The last setting is ours with the levers
that TRL lacks: a shared trunk, and decoding in bfloat16.

A round's reward is what PPO is paid before KL: the mean score less the penalties. TRL's final
reward and KL are means over its last three rounds. Ours is there at the first round where the mean
over three rounds is as high, and that of KL no higher. Seconds count from the first sampled token.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Beside this file lie some with names of our packages, and Python looks beside a script first.
HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]

BATCH, EPOCHS, MICRO_BATCH, TEMPERATURE, ANSWER = 64, 4, 16, 0.7, 96
LEARNING_RATE, KL, PENALTY = 1e-4, 0.05, 1.0
SMOOTHED = 3
SETTINGS = {"trl": "TRL 1.12.0, fp32", "ours": "ours, the same in fp32", "best": "ours, best"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--home", type=Path, help="where stages are kept")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(json.loads(options.worker))
        return
    sys.path.insert(0, str(HERE.parent))
    home = options.home or Path(tempfile.mkdtemp())
    prepared = prepare(home)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SETTINGS}
    for seed in range(options.seeds):
        for name in SETTINGS:  # the sides take turns, alone on the machine
            rounds = options.rounds if name == "trl" else options.rounds * 3 // 2
            runs[name].append(race(name, seed, rounds, options.clock, prepared))
            last = runs[name][-1]
            say(
                f"{SETTINGS[name]:<24} seed {seed}: {last['seconds'][-1]:.0f} s, reward "
                f"{final(last, 'reward'):.3f}, KL {final(last, 'kl'):.2f} at the end"
            )
    result: dict[str, Any] = {
        "rounds": options.rounds, "seeds": options.seeds, "clock": options.clock
    }  # fmt: skip
    for name in ("ours", "best"):
        ratios = [
            arrival(ours, final(trl, "reward"), final(trl, "kl")) / trl["seconds"][-1]
            for trl, ours in zip(runs["trl"], runs[name], strict=True)
        ]
        by_objective = [
            arrival(with_objective(ours), final(with_objective(trl), "reward"), float("inf"))
            / trl["seconds"][-1]
            for trl, ours in zip(runs["trl"], runs[name], strict=True)
        ]
        result[name] = {
            "share_of_trl_seconds": [shown(ratio) for ratio in ratios],
            "share_by_objective": [shown(ratio) for ratio in by_objective],
        }
    for name in SETTINGS:
        result[f"{name}_final"] = [
            {"reward": round(final(r, "reward"), 3), "kl": round(final(r, "kl"), 3),
             "seconds": round(r["seconds"][-1], 1)}
            for r in runs[name]
        ]  # fmt: skip
    for name in SETTINGS:
        result[f"{name}_rounds"] = [
            {figure: [round(v, 3) for v in values] for figure, values in r.items()}
            for r in runs[name]
        ]
    print(json.dumps(result))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def final(run: dict[str, list[float]], figure: str) -> float:
    return statistics.mean(run[figure][-SMOOTHED:])


def shown(ratio: float) -> float | None:
    """Return what JSON can hold: null where the other side was never reached."""
    return round(ratio, 3) if math.isfinite(ratio) else None


def with_objective(run: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return a run with what it maximises in place of its reward."""
    objective = [r - KL * kl for r, kl in zip(run["reward"], run["kl"], strict=True)]
    return run | {"reward": objective}


def arrival(run: dict[str, list[float]], reward: float, kl: float) -> float:
    """Return the seconds at which a run is as good as another, with no more KL; or infinity."""
    for end in range(SMOOTHED, len(run["reward"]) + 1):
        part = slice(end - SMOOTHED, end)
        if (
            statistics.mean(run["reward"][part]) >= reward
            and statistics.mean(run["kl"][part]) <= kl
        ):
            return run["seconds"][end - 1]
    return float("inf")


def prepare(home: Path) -> dict[str, str]:
    """Make the quickstart's SFT policy and reward model, merged, and the prompts as ids."""
    import torch

    from plumbline.config import load
    from plumbline.lm.load import load_causal_lm, load_sequence_scorer
    from plumbline.lm.policy import Policy
    from plumbline.lm.tokenizer import load_tokenizer
    from plumbline.runs.progress import Reporter
    from plumbline.runs.run import Run
    from plumbline.world.data import prompts
    from recipes import _shared
    from recipes.dpo_vs_ppo import DpoVsPpoConfig
    from reward.scorer import RewardModelScorer

    folders = {name: str(home / name) for name in ("policy", "reward")}
    saved = home / "prompts.json"
    if not saved.exists():
        configs = Path(_shared.__file__).parent / "configs"
        config = load(DpoVsPpoConfig, configs / "quickstart.yaml")
        run = Run(home / "runs", "race", "dpo_vs_ppo", config, Reporter())
        shared = _shared.shared_stages(run, config)
        tokenizer = load_tokenizer(shared.sft_policy.path)
        policy = merged(load_causal_lm(shared.sft_policy.path))
        policy.save_pretrained(folders["policy"])
        tokenizer.save_pretrained(folders["policy"])
        scorer = RewardModelScorer(shared.reward_model)
        reward = merged(load_sequence_scorer(shared.reward_model.path))
        with torch.no_grad():
            reward.score.weight.div_(scorer.calibration.std)
        reward.save_pretrained(folders["reward"])
        tokenizer.save_pretrained(folders["reward"])
        policy_of = Policy(policy, tokenizer)
        conversations = prompts(0, 2000, "preferences")
        saved.write_text(
            json.dumps(
                {
                    "shift": scorer.calibration.mean / scorer.calibration.std,
                    "prompts": conversations,
                    "ids": [policy_of.encode(prompt) for prompt in conversations],
                }
            )
        )
    return {**folders, "prompts": str(saved)}


def merged(model: Any) -> Any:
    """Return a model with its adapter, if it has one, in its weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def race(
    name: str, seed: int, rounds: int, clock: str, prepared: dict[str, str]
) -> dict[str, list[float]]:
    """Run one side in a process of its own; return reward, KL and seconds of each round."""
    from benchmarks.peer import peer_python

    interpreter = peer_python() if name == "trl" else Path(sys.executable)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "rounds.json"
        job = {
            "name": name, "seed": seed, "rounds": rounds, "clock": clock, "out": str(out),
            **prepared,
        }  # fmt: skip
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if clock == "cpu":
            environment["OMP_NUM_THREADS"] = "1"
        if name != "trl":
            environment["PYTHONPATH"] = str(HERE.parent)
        done = subprocess.run(
            [str(interpreter), __file__, "--worker", json.dumps(job)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        run: dict[str, list[float]] = json.loads(out.read_text())
    return run


def clock_of(job: dict[str, Any]) -> Callable[[], float]:
    return time.process_time if job["clock"] == "cpu" else time.monotonic


def work(job: dict[str, Any]) -> None:
    run = work_trl(job) if job["name"] == "trl" else work_ours(job)
    Path(job["out"]).write_text(json.dumps(run))


def work_trl(job: dict[str, Any]) -> dict[str, list[float]]:
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    now = clock_of(job)
    setup = json.loads(Path(job["prompts"]).read_text())
    started: list[float] = []
    sample = ppo_trainer.batch_generation

    def noticed(*arguments: Any, **options: Any) -> Any:
        if not started:
            started.append(now())
        return sample(*arguments, **options)

    ppo_trainer.batch_generation = noticed
    run: dict[str, list[float]] = {"reward": [], "kl": [], "seconds": []}

    class Notes(TrainerCallback):
        def on_log(self, *arguments: Any, logs: Any = None, **more: Any) -> None:
            if logs and "objective/scores" in logs:
                run["reward"].append(float(logs["objective/scores"]) - setup["shift"])
                run["kl"].append(float(logs["objective/kl"]))
                run["seconds"].append(now() - started[0])

    def scorer() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(job["reward"], num_labels=1)

    tokenizer = AutoTokenizer.from_pretrained(job["policy"], padding_side="left")
    data = Dataset.from_dict({"input_ids": setup["ids"]})
    value = scorer()
    # Like ours: the value model starts as the policy, and its head at zero.
    policy = AutoModelForCausalLM.from_pretrained(job["policy"])
    value.model.load_state_dict(policy.model.state_dict())
    with torch.no_grad():
        value.score.weight.zero_()
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=tempfile.mkdtemp(),
            use_cpu=True,
            bf16=False,
            seed=job["seed"],
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=MICRO_BATCH,
            gradient_accumulation_steps=BATCH // MICRO_BATCH,
            num_mini_batches=1,
            num_ppo_epochs=EPOCHS,
            local_rollout_forward_batch_size=BATCH,
            num_sample_generations=0,
            response_length=ANSWER,
            temperature=TEMPERATURE,
            stop_token="eos",
            missing_eos_penalty=PENALTY,
            kl_coef=KL,
            total_episodes=BATCH * job["rounds"],
            gradient_checkpointing=False,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            eval_strategy="no",
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=AutoModelForCausalLM.from_pretrained(job["policy"]),
        reward_model=scorer(),
        value_model=value,
        train_dataset=data,
        eval_dataset=data.select(range(MICRO_BATCH)),
        callbacks=[Notes()],
    )
    trainer.train()
    return run


def work_ours(job: dict[str, Any]) -> dict[str, list[float]]:
    sys.path.insert(0, str(HERE.parent))
    import rl.sampler
    from plumbline.lm.generation import SamplingConfig
    from plumbline.lm.tuning import TuningConfig
    from plumbline.runs.artifacts import Artifact
    from plumbline.runs.metrics import read_metrics
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage
    from reward.scorer import RewardModelScorer
    from rl.config import KLConfig, PPOConfig, ShapingConfig, ValueConfig
    from rl.ppo import train_ppo

    class Folder(Artifact):
        @property
        def id(self) -> str:
            return "race"

    now = clock_of(job)
    setup = json.loads(Path(job["prompts"]).read_text())
    moments: list[float] = []
    play = rl.sampler.play

    def noticed(*arguments: Any, **options: Any) -> Any:
        moments.append(now())
        return play(*arguments, **options)

    rl.sampler.play = noticed
    best = job["name"] == "best"
    stage = Stage(Path(tempfile.mkdtemp()), Reporter(quiet=True))
    scorer = RewardModelScorer(Path(job["reward"]))
    scorer.mean = setup["shift"]  # the standard deviation is in the head already
    train_ppo(
        stage,
        config=PPOConfig(
            tuning=TuningConfig(method="full"),
            precision="bfloat16" if best else "model",
            sampling=SamplingConfig(
                temperature=TEMPERATURE,
                max_new_tokens=ANSWER,
                **({"precision": "bfloat16"} if best else {}),
            ),
            iterations=job["rounds"],
            batch_size=BATCH,
            minibatch_size=BATCH,
            micro_batch_size=MICRO_BATCH,
            ppo_epochs=EPOCHS,
            learning_rate=LEARNING_RATE,
            value=ValueConfig(learning_rate=LEARNING_RATE, trunk="shared" if best else "own"),
            shaping=ShapingConfig(clip=None, missing_eos_penalty=PENALTY),
            kl=KLConfig(coefficient=KL),
            evaluations=0,
            checkpoint_every=10_000,
        ),
        policy=Folder(Path(job["policy"])),
        prompts=setup["prompts"],
        scorer=scorer,
        hook=lambda *_: {},
        seed=job["seed"],
    )
    ended = [*moments[1:], now()]
    lines = read_metrics(stage.folder / "metrics.jsonl")
    lines = [line for line in lines if "score" in line]
    return {
        "reward": [line["score"] - PENALTY * (1 - line["finished"]) for line in lines],
        "kl": [line["kl"] for line in lines],
        "seconds": [moment - moments[0] for moment in ended],
    }


if __name__ == "__main__":
    main()
