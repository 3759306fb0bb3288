"""How long a round of PPO and its sampling take, here and with TRL 1.12.0.

    python benchmarks/ppo.py                 # about six minutes
    python benchmarks/ppo.py --quick         # a look: one repeat of the main settings
    python benchmarks/ppo.py --growth        # ours alone, as batches and responses grow

A round is TRL's: 64 prompts of 32 tokens, responses of 64 tokens sampled to their full length (no
end token, so both sides do the same work), a reference model, a reward model and a value model of
the policy's size, full fine-tuning, 4 epochs of one optimiser step each on all 64 rows. The models
are Llamas of 5.26 million random weights. TRL runs in an environment of its own (made once, in the
user's cache). Every setting runs in a process of its own, and the processes take turns, a round
each, so that a slow minute of the machine falls on all of them; the first rounds are warm-up.

Settings are those that users have, one more in each line. "fp32" is the mathematics and the
precision of TRL; "bf16" keeps float32 weights and computes in bfloat16, which TRL's PPO cannot;
"shared" lets policy and value share a trunk, which is another model than TRL's two and is shown
apart.

The last line is one JSON object: ratios, peer's time over ours, higher is better for us.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

PEER = ("torch==2.13.0", "trl==1.12.0")
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
LOG = "workers.log"
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


TRL = Setting("TRL 1.12.0, fp32", "trl")
BF16: dict[str, Any] = {"learning": "bfloat16", "decoding": "bfloat16"}
LEVERS = (
    Setting("ours, without a snapshot for sampling", "ours", snapshot=False),
    Setting("+ sampling from a snapshot (= fp32)", "ours"),
    Setting("+ learning in bf16", "ours", learning="bfloat16"),
    Setting("+ sampling in bf16 (= bf16, two models)", "ours", **BF16, recompute=False),
    Setting("+ shared trunk (= best)", "ours", **BF16, recompute=False, trunk="shared"),
)
FP32, SEPARATE, BEST = LEVERS[1], LEVERS[3], LEVERS[4]
HF, HF_BF16 = Setting("generate, fp32", "hf"), Setting("generate, bf16", "hf", decoding="bfloat16")
DECODE = Setting("ours, fp32", "decode")
DECODE_BF16 = Setting("ours, bf16", "decode", decoding="bfloat16")
GENERATION = (HF, HF_BF16, DECODE, DECODE_BF16)


def clock() -> float:
    """Return seconds of the clock that was asked for, in this process."""
    return time.process_time() if os.environ.get(CLOCK) == "cpu" else time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="main settings, one repeat")
    parser.add_argument("--growth", action="store_true", help="ours alone, larger and longer")
    parser.add_argument("--only", choices=["ppo", "generation"], help="one half")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--trl-micro-batch", type=int, default=MICRO_BATCH)
    parser.add_argument("--threads", type=int, help="of every process; all cores without it")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: seconds of work; with --threads 1, of use where other work disturbs",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # which the workers inherit
    os.environ.setdefault(CLOCK, options.clock)  # which the workers inherit
    if options.worker:
        setting = Setting(**json.loads(options.worker))
        return WORKERS[setting.kind](setting)
    if options.growth:
        return print(json.dumps(growth(options)))
    repeats = 1 if options.quick else options.repeats
    result: dict[str, float] = {}
    if options.only != "ppo":
        result |= compare_generation(repeats, options.warm_up)
    if options.only != "generation":
        result |= compare_rounds(options, repeats)
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))
    return None


def compare_rounds(options: argparse.Namespace, repeats: int) -> dict[str, float]:
    trl = Setting(**{**vars(TRL), "micro_batch": options.trl_micro_batch})
    settings = [trl, *((FP32, SEPARATE, BEST) if options.quick else LEVERS)]
    times = alternate(settings, repeats, options.warm_up)
    print(f"\nA round of PPO: seconds, median of {repeats} (least to most)\n")
    print(
        f"{'':52}{'sampling':>9}{'scoring':>9}{'learning':>9}{'in all':>8}{'':>18}{'TRL / it':>9}"
    )
    base = total(times[trl.name])
    for setting in settings:
        rows = times[setting.name]
        parts = [median(rows, part) for part in ("sampling", "scoring", "learning")]
        spread = sorted(sum(row.values()) for row in rows)
        print(
            f"{setting.name:52}{parts[0]:9.2f}{parts[1]:9.2f}{parts[2]:9.2f}"
            f"{total(rows):8.2f}{f'({spread[0]:.2f} to {spread[-1]:.2f})':>18}"
            f"{base / total(rows):9.2f}"
        )
    return {
        "fp32_total": base / total(times[FP32.name]),
        "separate_total": base / total(times[SEPARATE.name]),
        "best_total": base / total(times[BEST.name]),
    }


def compare_generation(repeats: int, warm_up: int) -> dict[str, float]:
    result = {}
    for ends in (False, True):
        settings = [Setting(**{**vars(setting), "ends": ends}) for setting in GENERATION]
        times = alternate(settings, repeats, warm_up)
        title = "1 token in 32 ends a response" if ends else "responses of full length"
        print(f"\nSampling, 64 prompts, {title}: tokens per second, median (least to most)\n")
        speed = {}
        for setting in settings:
            rates = sorted(row["tokens"] / row["sampling"] for row in times[setting.name])
            speed[setting.name] = statistics.median(rates)
            print(
                f"{setting.name:30}{speed[setting.name]:10,.0f}   "
                f"({rates[0]:,.0f} to {rates[-1]:,.0f})"
            )
        suffix = "_with_ends" if ends else ""
        result |= {
            f"generation{suffix}": speed[DECODE_BF16.name] / speed[HF.name],
            f"generation_fp32{suffix}": speed[DECODE.name] / speed[HF.name],
            f"generation_bf16{suffix}": speed[DECODE_BF16.name] / speed[HF_BF16.name],
        }
    return result


def growth(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second and time by part of our best setting, and of its two-model form."""
    sizes = [(batch, 64) for batch in (8, 16, 32, 64, 128, 256)]
    sizes += [(64, answer) for answer in (128, 256, 512, 1024)]
    if options.quick:
        sizes = [(8, 64), (64, 64), (64, 256)]
    print(f"{'batch':>6}{'answer':>7}{'sampling':>10}{'scoring':>9}{'learning':>9}{'tokens/s':>20}")
    found = {}
    for batch, answer in sizes:
        setting = Setting(**{**vars(BEST), "batch": batch, "answer": answer})
        (row,) = alternate([setting], 1, 1)[setting.name]
        rate, whole = batch * answer / row["sampling"], batch * answer / sum(row.values())
        found[f"{batch}x{answer}"] = {**row, "sampled_a_second": rate, "a_second": whole}
        print(
            f"{batch:6}{answer:7}{row['sampling']:10.2f}{row['scoring']:9.2f}{row['learning']:9.2f}"
            f"{rate:10,.0f} sampled{whole:10,.0f} in all",
            flush=True,
        )
    return found


def median(rows: Sequence[dict[str, float]], part: str) -> float:
    return statistics.median(row[part] for row in rows)


def total(rows: Sequence[dict[str, float]]) -> float:
    return statistics.median(sum(row.values()) for row in rows)


# --- processes that take turns ----------------------------------------------------------------


def alternate(
    settings: Sequence[Setting], repeats: int, warm_up: int
) -> dict[str, list[dict[str, float]]]:
    """Let each setting do a round in turn, in a process of its own; return the rounds' times."""
    with tempfile.TemporaryDirectory() as scratch:
        workers = [_start(setting, Path(scratch)) for setting in settings]
        times: dict[str, list[dict[str, float]]] = {setting.name: [] for setting in settings}
        try:
            for turn in range(warm_up + repeats):
                for setting, worker in zip(settings, workers, strict=True):
                    row = _round(worker)
                    if turn >= warm_up:
                        times[setting.name].append(row)
        except RuntimeError:
            print((Path(scratch) / LOG).read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    return times


def _start(setting: Setting, scratch: Path) -> subprocess.Popen[str]:
    interpreter = peer_python() if setting.kind == "trl" else Path(sys.executable)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    if setting.kind != "trl":
        environment["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(
        [str(interpreter), str(Path(__file__).resolve()), "--worker", json.dumps(vars(setting))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(scratch / LOG).open("a"),
        text=True,
        cwd=scratch,
        env=environment,
    )


def _round(worker: subprocess.Popen[str]) -> dict[str, float]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    for line in worker.stdout:
        if line.startswith("{"):
            found: dict[str, float] = json.loads(line)
            return found
    raise RuntimeError(f"a worker ended: {worker.args!r}")


def _turns() -> Iterator[None]:
    """Wait for the signal to do a round, again and again."""
    for _ in sys.stdin:
        yield


def _say(**times: float) -> None:
    print(json.dumps(times), flush=True)


# --- the peer's environment -------------------------------------------------------------------


def peer_python() -> Path:
    """Return the interpreter of TRL's environment; make it where it is not.

    What TRL needs has the versions that the project's constraints name when it is made.
    """
    from filelock import FileLock
    from platformdirs import user_cache_path

    constraints = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith(("#", "trl=="))
    ]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256("\n".join([*PEER, version]).encode()).hexdigest()[:12]
    folder = user_cache_path("plumbline") / f"benchmark-trl-{digest}"
    interpreter = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / ".ready").exists():
            print(f"Installing {' '.join(PEER)} into {folder} (once on this machine) …", flush=True)
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
            venv.create(folder, with_pip=True, symlinks=True)
            pinned = folder / "constraints.txt"
            pinned.write_text("\n".join(constraints))
            command = [str(interpreter), "-m", "pip", "install", "--quiet"]
            subprocess.run([*command, "--constraint", str(pinned), *PEER], check=True)
            (folder / ".ready").touch()
    return interpreter


# --- models and prompts, the same for all -----------------------------------------------------


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


# --- workers ----------------------------------------------------------------------------------


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
        made = sample(*arguments, **options)
        at.sampled = clock()
        return made

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
    from rl.engines import ENGINES
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
    engine = ENGINES[config.rollouts.engine].make(config.rollouts, config.sampling)
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
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                max_new_tokens=setting.answer,
                pad_token_id=PAD,
                **ends,
            )[:, PROMPT:]
        took = clock() - start
        ending = torch.isin(made, torch.tensor(ENDS)).int() if setting.ends else made * 0
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
        made = generate(model, prompts, seeds, config, end_ids=ends, pad_id=PAD)
        took = clock() - start
        _say(sampling=took, tokens=float(sum(len(g.ids) for g in made)))


WORKERS: dict[str, Callable[[Setting], None]] = {
    "trl": work_trl,
    "ours": work_ours,
    "hf": work_hf,
    "decode": work_decode,
}

if __name__ == "__main__":
    main()
