"""Sample pairs of responses from your model, for people or a judge to compare, or a reward model.

    plumbline pairs --model MODEL --data PROMPTS
    plumbline annotate push RUN/stages/pairs/train.parquet
    plumbline pairs --model MODEL --data PROMPTS --reward REWARD_MODEL
    plumbline train dpo --model MODEL --data RUN:preferences

Each prompt has several responses, of which different ones are paired. With a reward model, the
pairs are preferences: the better response is chosen, and the difference of scores is the margin.
"""

from __future__ import annotations

from typing import Any

from plumbline.config import only_when
from plumbline.runs.run import Run
from preference.pairs import rank_pairs, sample_pairs
from preference.pairs_config import PairsConfig, RankingConfig, RefineConfig
from preference.refine import refine_preferences
from recipes._data import find_prompts
from recipes._models import find_model
from recipes._single import PromptsConfig, SingleConfig, reward_scorers


def _has_reward(config: Any) -> bool:
    return config.reward is not None


class SamplePairsConfig(SingleConfig):
    """Everything that may vary in this recipe."""

    others: tuple[str, ...] = ()
    """Further models that answer, each named as model is, which is the one that will be trained."""
    reward: str | None = None
    """A reward model that ranks the responses; named as the model is. Null: the pairs are for
    people to label."""
    prompts: PromptsConfig = PromptsConfig()
    """How prompts are read."""
    pairs: PairsConfig = PairsConfig()
    """How pairs are sampled; at most ``pairs.prompts`` prompts are answered."""
    ranking: RankingConfig = only_when(_has_reward, "reward", RankingConfig())
    """How the reward model makes preferences of a prompt's responses."""
    refine: RefineConfig = only_when(_has_reward, "reward", RefineConfig())
    """What becomes of the preferences then."""


CONFIG = SamplePairsConfig
ESSENTIAL = (
    "model", "others", "reward", "data", "seed", "prompts.columns", "pairs.prompts",
    "pairs.responses", "pairs.pairs_per_prompt", "pairs.temperatures",
    "pairs.sampling.temperature", "pairs.sampling.max_new_tokens", "ranking.pairing",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "columns": "prompts.columns",
    "prompts": "pairs.prompts",
    "responses": "pairs.responses",
    "temperature": "pairs.sampling.temperature",
    "max_length": "pairs.sampling.max_new_tokens",
    "pairing": "ranking.pairing",
}


def main(run: Run, config: SamplePairsConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Who answers what.
    rows = config.prompts.rows(rows=config.pairs.prompts)
    drawn: dict[str, Any] = {
        "config": config.pairs,
        "policy": find_model(run, config.model, "model"),
        "others": [find_model(run, name, "model") for name in config.others],
        "prompts": find_prompts(run, config.data, "train", rows, config.data_seed),
        "seed": config.seed,
    }

    # 2. Pairs for people, or preferences of a reward model.
    if config.reward is None:
        return dict(run.make("pairs", sample_pairs, **drawn).metrics)
    (scorer,) = reward_scorers(run, config.reward)
    preferences = run.make(
        "ranked",
        rank_pairs,
        **drawn,
        ranking=config.ranking,
        scorer=scorer,
        data_seed=config.data_seed,
    )
    refined = run.make(
        "preferences",
        refine_preferences,
        config=config.refine,
        preferences=preferences,
        seed=config.seed,
    )
    return {**preferences.metrics, **refined.metrics}
