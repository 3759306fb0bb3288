"""Rounds of PPO on a GPU: one process of ours, one of TRL 1.12, a few models in each.

Run by ``ppo.py --device cuda``. A round is that of docs/gpu.md: 64 prompts of 128 tokens, responses
of 256 sampled to their full length, 2 epochs of one step, random weights of the shapes of Qwen2.5.
TRL trains bfloat16 weights, in micro-batches of 16 rows; ours float32 weights (full) or an adapter
of rank 16 on a bfloat16 base, computed in bfloat16, in micro-batches that memory decides.

A process prints one JSON line per model: seconds by part, tokens per second, share of the peak of
a matrix product measured in the same process, and the most memory that was held.
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.model_shapes import (
    clock,
    compilation,
    device,
    device_name,
    folder_of_model,
    free,
    peak,
    peak_gib,
    policy_of,
    say,
    scorer_of,
    texts_of,
    tokenizer_of,
    wait_for_turn,
)

#: New tokens of each row that `generate` draws, which takes long.
GENERATED = 64
ROWS, PROMPT, RESPONSE, EPOCHS, MICRO_BATCH = 64, 128, 256, 2, 16


def work_ours(size: str, vocabulary: int, how: str, rounds: int, scale: float) -> None:
    """The project's own rounds, by the very objects that `rl.ppo.train_ppo` has."""
    import torch

    from plumbline.lm.generation import SamplingConfig
    from plumbline.lm.gpu.status import findings
    from plumbline.lm.tuning import TuningConfig
    from rl.config import PPOConfig, ValueConfig
    from rl.guards import Guard
    from rl.ppo import PPO
    from rl.roles import make_roles
    from rl.sampler import RolloutSampler

    wait_for_turn()
    top = peak()
    new = max(4, int(RESPONSE * scale))
    with folder_of_model(size, vocabulary) as folder:
        config = PPOConfig(
            tuning=TuningConfig(method=how),
            sampling=SamplingConfig(max_new_tokens=new),
            iterations=1_000_000,
            batch_size=ROWS,
            minibatch_size=ROWS,
            micro_batch_size=MICRO_BATCH,
            ppo_epochs=EPOCHS,
            learning_rate=3e-6,
            value=ValueConfig(learning_rate=3e-6),
        )
        torch.manual_seed(0)
        artifact: Any = SimpleNamespace(path=folder, id="benchmark")
        reward_model = OfIds(scorer_of(size, vocabulary, 1))
        roles, scorer = make_roles(artifact, config, reward_model)
    free()
    parameters = sum(p.numel() for p in reward_model.model.parameters())
    guard = Guard(config.guards, roles.policy, Path("/tmp"), lambda text: print(text, flush=True))
    ppo = PPO(roles, config, guard, seed=0)
    ids = texts_of(vocabulary, ROWS, PROMPT)
    prompts: Any = [[{"role": "user", "content": str(row)}] for row in range(ROWS)]
    roles.policy.encode = lambda prompt: ids[int(prompt[0]["content"])]  # type: ignore[method-assign]
    roles.policy.decode = lambda ids: ""  # type: ignore[method-assign]
    roles.policy.end_ids = frozenset()
    engine = config.rollouts.make_engine(config.sampling)
    sampler = RolloutSampler(engine, roles.policy, prompts, config, seed=0)
    result: dict[str, Any] = {}
    first: dict[str, float] = {}
    for turn in range(rounds):
        times = [clock()]
        episodes = sampler.next(ppo.iteration)
        times.append(clock())
        reward_model.rows = [[*e.prompt_ids, *e.response_ids] for e in episodes]
        rollout = ppo.build_rollout(episodes, scorer, recompute=sampler.recomputes_logprobs)
        times.append(clock())
        metrics = ppo.round(rollout)
        times.append(clock())
        sampling, scoring, learning = (after - before for before, after in pairwise(times))
        tokens = ROWS * (PROMPT + new)
        passes = 2 if not roles.shares_trunk else 1
        operations = (4 if how == "lora" else 6) * parameters * tokens * EPOCHS * passes
        result = {
            "round": turn,
            "sampling": sampling,
            "scoring": scoring,
            "learning": learning,
            "learning_share_of_peak": operations / learning / top,
            "sampling_tokens_per_second": ROWS * new / sampling,
            "peak_gib": peak_gib(),
            "approx_kl": metrics.get("approx_kl"),
            "ratio": metrics.get("ratio"),
            "policy_loss": metrics.get("policy_loss"),
            "skipped": metrics.get("skipped"),
            **compilation(),
        }
        if not turn:
            first = {"sampling": sampling, "scoring": scoring, "learning": learning}
        print("round", result, flush=True)
        if turn:  # said after every round, since time may run out
            say(who="ours", size=size, vocabulary=vocabulary, how=how, peak_tflops=top / 1e12,
                device=device_name(), first_round=first, **result)  # fmt: skip
    for (path, _, kind), status in findings().items():
        print("path", path.name, kind, "on" if status.on else "OFF", status.reason, flush=True)
    del roles, scorer, reward_model, guard, ppo, engine, sampler, rollout, episodes
    free()
    work_hf(size, vocabulary, how, 1, GENERATED / RESPONSE * min(1.0, 4 * scale))


class OfIds:
    """A reward model that is asked about the ids of the responses themselves (``rows``)."""

    name = "reward"
    rows: list[list[int]]

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    def score(self, prompts: Any, responses: Any) -> list[float]:
        import torch

        from plumbline.lm.batches import pad_right_ids
        from reward.text_scorer import classifier_outputs

        scores: list[float] = []
        most = self.model.config.vocab_size - 1  # the policy may have a token for padding more
        with torch.no_grad():
            for start in range(0, len(self.rows), ROWS):
                ids, mask = pad_right_ids(self.rows[start : start + ROWS], 0)
                scores += classifier_outputs(self.model, ids.clamp(max=most), mask)
        return scores


def work_trl(size: str, vocabulary: int, how: str, rounds: int, scale: float) -> None:
    """TRL's own trainer, watched at the seams of its rounds."""
    import torch
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    wait_for_turn()
    new = max(4, int(RESPONSE * scale))
    at = SimpleNamespace(start=0.0, sampled=0.0, learning=None)
    rows: list[dict[str, float]] = []
    sample = ppo_trainer.batch_generation

    def held_up(*arguments: Any, **options: Any) -> Any:
        now = clock()
        if at.start:
            rows.append(
                {
                    "sampling": at.sampled - at.start,
                    "scoring": at.learning - at.sampled,
                    "learning": now - at.learning,
                }
            )
            print("round", rows[-1], flush=True)
        if len(rows) == rounds:
            raise StopIteration
        at.start, at.learning = clock(), None
        responses = sample(*arguments, **options)
        at.sampled = clock()
        return responses

    ppo_trainer.batch_generation = held_up
    arguments = PPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=device() == "cpu",
        bf16=False,
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=ROWS // MICRO_BATCH,
        num_mini_batches=1,
        num_ppo_epochs=EPOCHS,
        local_rollout_forward_batch_size=ROWS,
        num_sample_generations=0,
        response_length=new,
        temperature=1.0,
        total_episodes=1_000_000,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
    )
    more: dict[str, Any] = {"ref_model": policy_of(size, vocabulary)}
    if how == "lora":
        from peft import LoraConfig

        more = {
            "ref_model": None,
            "peft_config": LoraConfig(
                r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        }
    data = Dataset.from_dict({"input_ids": texts_of(vocabulary, 4 * ROWS, PROMPT)})
    trainer = PPOTrainer(
        args=arguments,
        processing_class=tokenizer_of(vocabulary),
        model=policy_of(size, vocabulary),
        reward_model=scorer_of(size, vocabulary, 1),
        value_model=scorer_of(size, vocabulary, 2),
        train_dataset=data,
        eval_dataset=data.select(range(MICRO_BATCH)),
        **more,
    )
    accumulate = trainer.accelerator.accumulate

    def noticed(*models: Any) -> Any:
        if at.learning is None:
            at.learning = clock()
        return accumulate(*models)

    trainer.accelerator.accumulate = noticed
    free()
    torch.manual_seed(0)
    try:
        trainer.train()
    except (StopIteration, RuntimeError) as error:
        if len(rows) < rounds:
            raise error
    finally:
        ppo_trainer.batch_generation = sample
    say(who="trl", size=size, vocabulary=vocabulary, how=how, peak_gib=peak_gib(), **rows[-1])


def work_hf(size: str, vocabulary: int, how: str, rounds: int, scale: float) -> None:
    """`generate` of transformers, as it comes."""
    import torch

    wait_for_turn()
    new = max(4, int(RESPONSE * scale))
    model = policy_of(size, vocabulary).eval()
    ids = torch.tensor(texts_of(vocabulary, ROWS, PROMPT), device=device())
    rate = 0.0
    for _ in range(rounds):
        start = clock()
        with torch.no_grad():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                max_new_tokens=new,
                min_new_tokens=new,
                pad_token_id=0,
            )
        rate = ROWS * new / (clock() - start)
    say(who="hf", size=size, vocabulary=vocabulary, how=how, generate_tokens_per_second=rate)


def main() -> None:
    """Do the work of ``WHO ROUNDS SCALE SIZE:VOCABULARY:HOW …``; one failure stops no other."""
    import traceback

    who, rounds, scale, *names = sys.argv[1:]
    work = {"ours": work_ours, "trl": work_trl, "hf": work_hf}[who]
    for name in names:
        size, vocabulary, how = name.split(":")
        start = time.perf_counter()
        try:
            work(size, int(vocabulary), how, int(rounds), float(scale))
        except Exception:
            print("FAILED", who, name, flush=True)
            traceback.print_exc()
        print(f"-- {who} {name}: {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
