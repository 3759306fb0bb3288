"""Who does a round of PPO or of sampling, for `ppo.py`: TRL, ours, and transformers.

Each runs in a process of its own, started with a setting as JSON, and does one round for each line
that it reads.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

VOCABULARY, PAD, END = 4096, 0, 1
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "eos_token_id": None,
}
PROMPT, EPOCHS, MICRO_BATCH = 32, 4, 16
CLOCK = "PLUMBLINE_BENCHMARK_CLOCK"
#: Tokens that end a response in the figure with early ends: 1 in 32, as random weights are even.
ENDS = tuple(range(100, 100 + VOCABULARY // 32))


@dataclass(frozen=True)
class Setting:
    """One way of doing the work. Ours are settings of `rl.config.PPOConfig`, as users set them."""

    name: str
    kind: str  # trl, ours, hf or decode
    snapshot: bool = True  # sampling.snapshot
    learning: str = "model"  # precision
    decoding: str = "model"  # sampling.precision
    recompute: bool | None = None  # rollouts.recompute_logprobs
    trunk: str = "own"  # value.trunk
    batch: int = 64
    answer: int = 64
    micro_batch: int = MICRO_BATCH
    ends: bool = False


def clock() -> float:
    """Return seconds of the clock that was asked for, in this process."""
    return time.process_time() if os.environ.get(CLOCK) == "cpu" else time.perf_counter()


def _turns() -> Iterator[None]:
    """Wait for the signal to do a round, again and again."""
    for _ in sys.stdin:
        yield


def _say(**times: float) -> None:
    print(json.dumps(times), flush=True)


# --- Models and prompts, the same for all. --------------------------------------------------------


def _config(**more: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**SHAPE, **more)


def _policy() -> Any:
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(_config())
    model.generation_config.eos_token_id = None
    return model


def _scorer(seed: int) -> Any:
    import torch
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(seed)
    return LlamaForSequenceClassification(_config(num_labels=1))


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD, "<end>": END} | {f"w{n}": n for n in range(2, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )


def _prompts(count: int) -> list[list[int]]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, VOCABULARY, (count, PROMPT), generator=generator).tolist()


# --- Workers. -------------------------------------------------------------------------------------


def work_trl(setting: Setting) -> None:
    """TRL's own trainer, held up at the start of each round until it is its turn."""
    import torch
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    at = SimpleNamespace(start=0.0, sampled=0.0, learning=None)
    sample = ppo_trainer.batch_generation
    turns = _turns()

    def held_up(*arguments: Any, **options: Any) -> Any:
        now = clock()
        if at.start:
            _say(
                sampling=at.sampled - at.start,
                scoring=at.learning - at.sampled,
                learning=now - at.learning,
            )
        next(turns)
        at.start, at.learning = clock(), None
        responses = sample(*arguments, **options)
        at.sampled = clock()
        return responses

    ppo_trainer.batch_generation = held_up
    arguments = PPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=setting.micro_batch,
        gradient_accumulation_steps=setting.batch // setting.micro_batch,
        num_mini_batches=1,
        num_ppo_epochs=EPOCHS,
        local_rollout_forward_batch_size=setting.batch,
        num_sample_generations=0,
        response_length=setting.answer,
        temperature=1.0,
        total_episodes=1_000_000,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        eval_strategy="no",
    )
    data = Dataset.from_dict({"input_ids": _prompts(4 * setting.batch)})
    policy, reference = _policy(), _policy()
    trainer = PPOTrainer(
        args=arguments,
        processing_class=_tokenizer(),
        model=policy,
        ref_model=reference,
        reward_model=_scorer(1),
        value_model=_scorer(2),
        train_dataset=data,
        eval_dataset=data.select(range(setting.micro_batch)),
    )
    accumulate = trainer.accelerator.accumulate

    def noticed(*models: Any) -> Any:
        if at.learning is None:
            at.learning = clock()
        return accumulate(*models)

    trainer.accelerator.accumulate = noticed
    torch.manual_seed(0)
    with _stdout_silent():
        trainer.train()


@contextmanager
def _stdout_silent() -> Iterator[None]:
    """Let what a library prints go to the log; `_say` keeps the real output."""
    real = sys.stdout

    def say(**times: float) -> None:
        print(json.dumps(times), file=real, flush=True)

    globals()["_say"] = say
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = real


def work_ours(setting: Setting) -> None:
    """The project's own rounds, by the very objects that `rl.ppo.train_ppo` has."""
    import torch

    from plumbline.lm.generation import SamplingConfig
    from plumbline.lm.precision import compute_precision
    from plumbline.lm.tuning import TuningConfig
    from rl.config import PPOConfig, RolloutConfig, ValueConfig
    from rl.guards import Guard
    from rl.ppo import PPO
    from rl.roles import make_roles
    from rl.sampler import RolloutSampler

    folder = Path(tempfile.mkdtemp(dir="."))
    _policy().save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    config = PPOConfig(
        tuning=TuningConfig(method="full"),
        sampling=SamplingConfig(
            max_new_tokens=setting.answer, snapshot=setting.snapshot, precision=setting.decoding
        ),
        rollouts=RolloutConfig(recompute_logprobs=setting.recompute),
        precision=setting.learning,
        iterations=1_000_000,
        batch_size=setting.batch,
        minibatch_size=setting.batch,
        micro_batch_size=min(setting.micro_batch, setting.batch),
        ppo_epochs=EPOCHS,
        learning_rate=3e-6,
        value=ValueConfig(learning_rate=3e-6, trunk=setting.trunk),
    )
    torch.manual_seed(0)
    artifact: Any = SimpleNamespace(path=folder, id="benchmark")
    reward_model = _reward_model(config.micro_batch_size)
    roles, scorer = make_roles(artifact, config, reward_model)
    guard = Guard(config.guards, roles.policy, folder, lambda text: print(text, file=sys.stderr))
    ppo = PPO(roles, config, guard, seed=0)
    # Prompts of one length and responses without an end: the same work for both sides.
    ids = _prompts(setting.batch)
    prompts: Any = [[{"role": "user", "content": str(row)}] for row in range(setting.batch)]
    roles.policy.encode = lambda prompt: ids[int(prompt[0]["content"])]  # type: ignore[method-assign]
    roles.policy.end_ids = frozenset()
    engine = config.rollouts.make_engine(config.sampling)
    sampler = RolloutSampler(engine, roles.policy, prompts, config, seed=0)
    if roles.shares_trunk:
        sampler.note_values(roles.value_of)
    with compute_precision("model", "cpu"):  # as around the whole of `train_ppo`
        for _ in _turns():
            times = [clock()]
            episodes = sampler.next(ppo.iteration)
            times.append(clock())
            reward_model.rows = [[*e.prompt_ids, *e.response_ids] for e in episodes]
            rollout = ppo.build_rollout(episodes, scorer, recompute=sampler.recomputes_logprobs)
            times.append(clock())
            ppo.round(rollout)
            times.append(clock())
            sampling, scoring, learning = (after - before for before, after in pairwise(times))
            _say(sampling=sampling, scoring=scoring, learning=learning)


def _reward_model(size: int) -> Any:
    """Return the project's scorer with a reward model of the policy's size.

    It is asked about the ids of the responses themselves (``rows``): their text is of no language.
    """
    from reward.scorer import RewardModelScorer

    class OfIds(RewardModelScorer):
        rows: list[list[int]]

        def _encode(self, prompt: Any, response: Any) -> list[int]:
            return self._asked.pop()

        def score(self, prompts: Any, responses: Any) -> list[float]:
            self._asked = self.rows[::-1]
            return super().score(prompts, responses)

    folder = Path(tempfile.mkdtemp(dir="."))
    _scorer(1).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return OfIds(folder, batch_size=size)


def work_hf(setting: Setting) -> None:
    """`generate` of transformers, as it comes."""
    import torch

    model = _policy().eval()
    if setting.decoding == "bfloat16":
        model = model.bfloat16()
    ids = torch.tensor(_prompts(setting.batch))
    ends: dict[str, Any] = {"min_new_tokens": setting.answer}
    if setting.ends:
        ends = {"eos_token_id": list(ENDS)}
    for turn, _ in enumerate(_turns()):
        torch.manual_seed(turn)
        start = clock()
        with torch.no_grad():
            responses = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                max_new_tokens=setting.answer,
                pad_token_id=PAD,
                **ends,
            )[:, PROMPT:]
        took = clock() - start
        ending = torch.isin(responses, torch.tensor(ENDS)).int() if setting.ends else responses * 0
        before = (ending.cumsum(1) - ending == 0).sum()
        _say(sampling=took, tokens=float(before))


def work_decode(setting: Setting) -> None:
    """Our own sampling, alone."""
    from plumbline.lm.generation import SamplingConfig, generate

    model = _policy().eval()
    prompts = _prompts(setting.batch)
    config = SamplingConfig(
        max_new_tokens=setting.answer, snapshot=setting.snapshot, precision=setting.decoding
    )
    ends = frozenset(ENDS if setting.ends else ())
    for turn, _ in enumerate(_turns()):
        seeds = [turn * setting.batch + row for row in range(setting.batch)]
        start = clock()
        generations = generate(model, prompts, seeds, config, end_ids=ends, pad_id=PAD)
        took = clock() - start
        _say(sampling=took, tokens=float(sum(len(g.ids) for g in generations)))


WORKERS: dict[str, Callable[[Setting], None]] = {
    "trl": work_trl,
    "ours": work_ours,
    "hf": work_hf,
    "decode": work_decode,
}

if __name__ == "__main__":
    setting = Setting(**json.loads(sys.argv[1]))
    WORKERS[setting.kind](setting)
