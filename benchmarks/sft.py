"""How fast supervised fine-tuning is: our trainer against TRL's own, on the same rows.

    python benchmarks/sft.py --device cuda                        # 0.5b, full and LoRA
    python benchmarks/sft.py --device cuda --models 1.5b/151936/lora
    python benchmarks/sft.py --device cpu                         # a tiny model, for a try

Models have random weights in the shapes of Qwen2.5. Each step reads 32 rows of 128 to 512 tokens,
all of them learnt from, and computes in bfloat16 over the weights as they are held: float32 (full),
or bfloat16 under an adapter of rank 16 in float32. Both trainers have TRL's collator, optimiser and
fused head, and no activation checkpointing; ours reads the rows by packed passes on a GPU.

The last line is one JSON object with a key for each model: tokens per second (padding is not
counted), and the share of the peak of a matrix product, for ours and for TRL; ``speed`` is ours
over TRL's.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

from benchmarks.model_shapes import (
    clock,
    compilation,
    device,
    device_name,
    folder_of_model,
    free,
    peak,
    peak_gib,
    wait_for_turn,
)

ROWS, SHORTEST, LONGEST = 32, 128, 512
MODELS = {"cuda": ("0.5b/32000/full", "0.5b/32000/lora"), "cpu": ("tiny/500/full", "tiny/500/lora")}
#: Steps that count, and those before them, in which layers are compiled.
STEPS, WARM_UP = 10, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--models", nargs="*", help="such as 0.5b/32000/lora")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--longest", type=int, default=LONGEST)
    options = parser.parse_args()
    if options.device == "cuda" and device() != "cuda":
        parser.error("there is no GPU here; --device cpu tries a tiny model")
    if options.device == "cpu" and device() == "cuda":
        parser.error("there is a GPU here; hide it (CUDA_VISIBLE_DEVICES=) for --device cpu")
    wait_for_turn()
    top = peak()
    result: dict[str, Any] = {}
    for name in options.models or MODELS[options.device]:
        size, vocabulary, how = name.split("/")
        sides: dict[str, Any] = {}
        with folder_of_model(size, int(vocabulary)) as folder:
            for who in ("trl", "ours"):
                sides[who] = train(who, folder, int(vocabulary), how, top, options)
                print(json.dumps({name: {who: sides[who]}}), flush=True)
        speed = sides["ours"]["tokens_per_second"] / sides["trl"]["tokens_per_second"]
        result[name] = {**sides, "speed": speed}
    print(json.dumps({**result, "peak_tflops": top / 1e12, "device": device_name()}))


def train(
    who: str, folder: Path, vocabulary: int, how: str, top: float, options: argparse.Namespace
) -> dict[str, float]:
    """Return what some steps of a trainer came to."""
    import trl
    from datasets import Dataset
    from transformers import TrainerCallback, set_seed

    from plumbline.lm.load import trainable_causal_lm
    from plumbline.lm.tokenizer import load_tokenizer
    from plumbline.lm.tuning import TuningConfig
    from sft.trainer import SFTTrainer

    free()
    set_seed(0)
    steps = WARM_UP + options.steps
    rows = texts(steps * options.rows, vocabulary, options.longest)
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(clock())

    trainer_class = SFTTrainer if who == "ours" else trl.SFTTrainer
    model = trainable_causal_lm(folder, TuningConfig(method=how))
    parameters = sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n)
    trainer = trainer_class(
        model=model,
        args=trl.SFTConfig(
            output_dir=tempfile.mkdtemp(),
            max_steps=steps,
            per_device_train_batch_size=options.rows,
            learning_rate=1e-5,
            bf16=True,
            use_cpu=device() == "cpu",
            max_length=None,
            gradient_checkpointing=False,
            logging_steps=steps,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
        ),
        train_dataset=Dataset.from_list([{"input_ids": row, "labels": row} for row in rows]),
        processing_class=load_tokenizer(folder),
        callbacks=[Clock()],
    )
    start = clock()
    trainer.train()
    spans = [after - before for before, after in pairwise([start, *times])]
    lengths = [
        sum(len(row) for row in rows[step * options.rows : (step + 1) * options.rows])
        for step in range(steps)
    ]
    rate = sum(lengths[WARM_UP:]) / sum(spans[WARM_UP:])
    return {
        "tokens_per_second": rate,
        "share_of_peak": (4 if how == "lora" else 6) * parameters * rate / top,
        "peak_gib": peak_gib(),
        "first_step_seconds": spans[0],
        "loss": next(line["loss"] for line in trainer.state.log_history if "loss" in line),
        **compilation(),
    }


def texts(count: int, vocabulary: int, longest: int) -> list[list[int]]:
    """Return random tokens in rows of different lengths."""
    generator = random.Random(0)
    return [
        [generator.randrange(2, vocabulary) for _ in range(generator.randint(SHORTEST, longest))]
        for _ in range(count)
    ]


if __name__ == "__main__":
    main()
