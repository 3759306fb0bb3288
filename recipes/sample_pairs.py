"""Sample pairs of responses from your model, for people or a judge to compare.

    plumbline pairs --model MODEL --data PROMPTS
    plumbline annotate push RUN/stages/pairs/train.parquet

Each prompt has several responses, of which different ones are paired in random order.
"""

from __future__ import annotations

from typing import Any

from plumbline.runs.run import Run
from preference.config import PairsConfig
from preference.pairs import sample_pairs
from recipes._data import find_prompts
from recipes._models import find_model
from recipes._single import PromptsConfig, SingleConfig


class SamplePairsConfig(SingleConfig):
    """Everything that may vary in this recipe."""

    prompts: PromptsConfig = PromptsConfig()
    """How prompts are read."""
    pairs: PairsConfig = PairsConfig()
    """How pairs are sampled; at most ``pairs.prompts`` prompts are answered."""


CONFIG = SamplePairsConfig
ESSENTIAL = (
    "model", "data", "seed", "prompts.columns", "pairs.prompts", "pairs.responses",
    "pairs.pairs_per_prompt", "pairs.sampling.temperature", "pairs.sampling.max_new_tokens",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "columns": "prompts.columns",
    "prompts": "pairs.prompts",
    "responses": "pairs.responses",
    "temperature": "pairs.sampling.temperature",
    "max_length": "pairs.sampling.max_new_tokens",
}


def main(run: Run, config: SamplePairsConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    rows = config.prompts.rows(rows=config.pairs.prompts)
    pairs = run.make(
        "pairs",
        sample_pairs,
        config=config.pairs,
        policy=find_model(run, config.model, "model"),
        prompts=find_prompts(run, config.data, "train", rows, config.data_seed),
        seed=config.seed,
    )
    return dict(pairs.metrics)
