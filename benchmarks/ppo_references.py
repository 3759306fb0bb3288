"""What other implementations of PPO and its relatives say: the numbers of tests/rl/references.json.

    python benchmarks/ppo_references.py            # compute them again, and compare
    python benchmarks/ppo_references.py --write    # and replace the file

Each reference is called on the file's inputs: stable-baselines3's rollout buffer, the losses and
the advantages of TRL 0.12.0's PPOTrainer, and those of the GRPO and RLOO trainers of the TRL that
is installed. The first two are fetched by pip into a temporary folder. Code in the middle of a
long method is run as it is there, on our inputs, found by the lines around it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import json
import subprocess
import sys
import tempfile
import textwrap
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Beside this file lie some with names of our packages, and Python looks beside a script first.
HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]

FILE = HERE.parent / "tests" / "rl" / "references.json"
BUFFERS = ("stable-baselines3==2.9.2", "gymnasium==1.4.0", "cloudpickle==3.1.2",
           "farama-notifications==0.0.6")  # fmt: skip
OLD_TRL = "trl==0.12.0"
CLIP, BETA, GROUP, MOST = 0.2, 0.05, 4, 8
SETTINGS: dict[str, dict[str, Any]] = {
    "clip, sequence_mean, k3": {"loss_type": "grpo", "beta": BETA},
    "clip, token_mean": {"loss_type": "bnpo"},
    "clip-higher, token_mean": {"loss_type": "dapo", "high": 0.28},
    "clip, fixed_length": {"loss_type": "dr_grpo"},
    "cispo, token_mean": {"loss_type": "cispo", "high": 1.28},
    "gspo, sequence_mean": {"loss_type": "grpo", "level": "sequence", "low": 0.05, "high": 0.05},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace the file")
    options = parser.parse_args()
    known = json.loads(FILE.read_text())
    inputs = known["inputs"]
    with tempfile.TemporaryDirectory() as scratch:
        fetch(Path(scratch))
        computed = {
            "sb3_gae": [buffer(inputs, 1.0, 0.95), buffer(inputs, 0.9, 0.8)],
            **old_trl(inputs, Path(scratch)),
            "trl_1_16": {name: grpo(inputs, **how) for name, how in SETTINGS.items()},
            "trl_1_16_rloo": {"group": GROUP, "advantages": rloo(inputs)},
            "trl_1_16_grpo": {"group": GROUP, "advantages": standardized(inputs)},
        }
    plain = rounded(computed)
    error = max(distance(known[name], plain[name]) for name in plain)
    if options.write:
        FILE.write_text(json.dumps(known | plain, indent=1))
    version = importlib.metadata.version("trl")
    print(json.dumps({"largest_difference": error, "trl": version, "written": options.write}))


def fetch(folder: Path) -> None:
    """Bring the two references that the project has not, without what they depend on."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*pip, str(folder / "sb3"), *BUFFERS], check=True)
    subprocess.run([*pip, str(folder / "trl"), OLD_TRL], check=True)
    sys.path.append(str(folder / "sb3"))


def tensors(inputs: dict[str, Any]) -> SimpleNamespace:
    """Return the inputs in float64, with the mask [B, R] of real tokens."""
    import torch

    converted = {
        name: torch.tensor(value, dtype=torch.float64)
        for name, value in inputs.items()
        if name != "lengths"
    }
    lengths = torch.tensor(inputs["lengths"])
    mask = torch.arange(converted["old"].shape[1]) < lengths[:, None]
    return SimpleNamespace(lengths=inputs["lengths"], mask=mask, **converted)


def buffer(inputs: dict[str, Any], gamma: float, lam: float) -> dict[str, Any]:
    """Generalised advantages of stable-baselines3: a buffer a row, which ends in a last state."""
    import gymnasium
    import numpy as np
    import torch
    from stable_baselines3.common.buffers import RolloutBuffer

    data = tensors(inputs)
    advantages, returns = [], []
    for row, length in enumerate(data.lengths):
        held = RolloutBuffer(
            length,
            gymnasium.spaces.Box(-1, 1, (1,)),
            gymnasium.spaces.Discrete(2),
            device="cpu",
            gamma=gamma,
            gae_lambda=lam,
            n_envs=1,
        )
        held.rewards[:, 0] = data.rewards[row, :length].numpy()
        held.values[:, 0] = data.values[row, :length].numpy()
        held.episode_starts[:] = 0
        held.episode_starts[0] = 1
        held.compute_returns_and_advantage(torch.zeros(1), np.array([True]))
        advantages.append(held.advantages[:, 0])
        returns.append(held.returns[:, 0])
    return {"gamma": gamma, "lam": lam, "advantages": advantages, "returns": returns}


def old_trl(inputs: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Whitening, losses and advantages of TRL 0.12.0."""
    import torch

    data = tensors(inputs)
    package = folder / "trl" / "trl"
    core, trainer = (
        (package / name).read_text(encoding="utf-8")
        for name in ("core.py", "trainer/ppo_trainer.py")
    )
    names: dict[str, Any] = {"torch": torch, "Optional": __import__("typing").Optional}
    for name in ("masked_mean", "masked_var", "masked_whiten"):
        run(between(core, f"def {name}(", "\n\n\n"), names)
    whiten = names["masked_whiten"]
    whitened = whiten(data.token_advantages, data.mask)
    arguments = SimpleNamespace(cliprange=CLIP, cliprange_value=CLIP, gamma=0.9, lam=0.8)
    losses = names | {
        "args": arguments,
        "vpred": data.new_values,
        "mb_values": data.values,
        "mb_return": data.rewards,
        "padding_mask": ~data.mask,
        "padding_mask_p1": ~data.mask,
        "micro_batch_inds": slice(None),
        "new_logprobs": data.new,
        "mb_logprobs": data.old,
        "mb_advantage": torch.where(data.mask, whitened, 0.0),
    }
    run(between(trainer, "vpredclipped = ", "loss = pg_loss + args.vf_coef"), losses)
    advantages = names | {
        "args": arguments,
        "values": data.values,
        "rewards": data.rewards,
        "responses": torch.zeros_like(data.rewards),
    }
    run(between(trainer, "lastgaelam = 0", "advantages = masked_whiten(advantages"), advantages)
    unshifted = whiten(data.token_advantages, data.mask, shift_mean=False)
    return {
        "trl_0_12_ppo": {
            "whitened": ragged(whitened, data.lengths),
            "unshifted": ragged(unshifted, data.lengths),
            "policy_loss": losses["pg_loss"],
            "value_loss": losses["vf_loss"],
            "value_clip_fraction": losses["vf_clipfrac"],
        },
        "trl_0_12_gae": {
            "gamma": 0.9,
            "lam": 0.8,
            "advantages": advantages["advantages"],
            "returns": advantages["returns"],
        },
    }


def grpo(
    inputs: dict[str, Any],
    loss_type: str,
    *,
    level: str = "token",
    beta: float = 0.0,
    low: float = CLIP,
    high: float = CLIP,
) -> dict[str, Any]:
    """Loss and gradient of TRL's GRPOTrainer, with its model's log-probabilities put in."""
    import torch
    from trl.trainer.grpo_trainer import GRPOTrainer

    data = tensors(inputs)
    logprobs = data.new.clone().requires_grad_()
    alone = SimpleNamespace(
        num_processes=1,
        gather=lambda tensor: tensor,
        gather_for_metrics=lambda tensor: tensor,
        reduce=lambda tensor, reduction=None: tensor,
    )
    trainer: Any = SimpleNamespace(
        accelerator=alone,
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(
            use_bias_correction_kl=False, delta=None, steps_per_generation=1, report_to=[]
        ),
        loss_type=loss_type,
        importance_sampling_level=level,
        beta=beta,
        epsilon_low=low,
        epsilon_high=high,
        max_completion_length=MOST,
        current_gradient_accumulation_steps=1,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        use_adaptive_entropy=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        _step=0,
        _get_per_token_logps_and_entropies=lambda *_, **__: (
            logprobs,
            torch.zeros_like(logprobs),
            None,
        ),
    )
    rows, width = logprobs.shape
    batch = {
        "prompt_ids": torch.zeros(rows, 1),
        "prompt_mask": torch.ones(rows, 1),
        "completion_ids": torch.zeros(rows, width),
        "completion_mask": data.mask.long(),
        "advantages": data.advantages,
        "old_per_token_logps": data.old,
        "ref_per_token_logps": data.reference,
        "num_items_in_batch": data.mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, batch)
    loss.backward()
    return {"loss": loss, "gradient": logprobs.grad.masked_fill(~data.mask, 0)}


def rloo(inputs: dict[str, Any]) -> Any:
    """Advantages of TRL's RLOOTrainer, in groups."""
    import torch
    from trl.trainer.rloo_trainer import RLOOTrainer
    from trl.trainer.utils import nanstd

    names = {
        "torch": torch,
        "nanstd": nanstd,
        "rewards": tensors(inputs).scores,
        "num_generations": GROUP,
    }
    start = "grouped_rewards = rewards.view(-1, num_generations)"
    end = "# Normalize advantages over the scorable"
    run(between(inspect.getsource(RLOOTrainer), start, end), names)
    return names["advantages"]


def standardized(inputs: dict[str, Any]) -> Any:
    """Advantages by the formula of TRL's GRPOTrainer, with its own standard deviation."""
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.utils import nanstd

    assert "advantages / (std_rewards + 1e-4)" in inspect.getsource(GRPOTrainer)
    scores = tensors(inputs).scores
    groups = scores.view(-1, GROUP)
    mean = groups.mean(1).repeat_interleave(GROUP)
    return (scores - mean) / (nanstd(groups, dim=1).repeat_interleave(GROUP) + 1e-4)


def between(source: str, start: str, end: str) -> str:
    """Return the lines from the one that begins with ``start`` to before the one with ``end``."""
    first = source.rindex("\n", 0, source.index(start)) + 1
    last = source.index(end, first)
    return textwrap.dedent(source[first : last + 1].rpartition("\n")[0] + "\n")


def run(code: str, names: dict[str, Any]) -> None:
    exec(code, names)  # what a reference says, in its own words


def ragged(rows: Any, lengths: list[int]) -> list[Any]:
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def rounded(value: Any) -> Any:
    """Return plain lists and numbers of eight decimals."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 8) if isinstance(value, float) else value


def distance(left: Any, right: Any) -> float:
    """Return the largest difference of two of the same form; infinity where the form differs."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return max(distance(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return max(map(distance, left, right), default=0.0)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return abs(left - right)
    return float("inf")


if __name__ == "__main__":
    main()
