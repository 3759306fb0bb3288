"""Label the steps of your model's responses by what follows from them, without people.

    plumbline steps --model MODEL --data questions.jsonl --compare numeric
    plumbline steps --model MODEL --data PROMPTS --checker checker.yaml
    plumbline train process-reward --model MODEL --data RUN:steps

Responses are sampled and cut into steps; behind each step your model continues several times, and
the share of right results is the step's label (Math-Shepherd; Wang et al., 2024). A result is right
if it gives the answer that the data have for its prompt, or if a checker of yours says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from plumbline.config import Config, Seed, only_when
from plumbline.errors import ConfigError
from plumbline.runs.calls import Deferred, SourceFile, defer
from plumbline.runs.run import Run
from recipes._data import find_prompts
from recipes._models import find_model
from recipes._single import PromptsConfig, reward_scorers
from reward.process.config import RolloutLabelsConfig
from reward.process.rollouts import label_steps
from reward.scorers.answers import COMPARISONS, AnswerScorer


class LabelStepsConfig(Config):
    """Everything that may vary in this recipe."""

    model: str
    """The model that responds and continues: a hub name, a folder, a GGUF file, run:stage, or the
    id of an artefact."""
    data: str
    """Prompts, with their answers as references: a file; with a checker of yours also a dataset of
    the hub (org/name), run:stage, or the id of an artefact."""
    data_seed: Seed = 0
    """Seed of the responses, of what continues them, and of the split."""
    checker: str | None = None
    """What says whether a result is right: a file of terms, such as one of kind code, or any other
    reward. Null: the known answers in data."""
    compare: Annotated[str, COMPARISONS] = only_when(
        lambda config: config.checker is None, "checker: null", "exact"
    )
    """How a response is compared with the known answer."""
    prompts: PromptsConfig = PromptsConfig()
    """How prompts are read."""
    max_prompts: int = Field(500, ge=1)
    """Respond to at most so many prompts."""
    labels: RolloutLabelsConfig = RolloutLabelsConfig()
    """How responses are sampled, cut and labelled."""


CONFIG = LabelStepsConfig
ESSENTIAL = (
    "model", "data", "checker", "compare", "data_seed", "prompts.columns", "max_prompts",
    "labels.responses", "labels.rollouts", "labels.split", "labels.right_above",
    "labels.sampling.temperature", "labels.sampling.max_new_tokens", "labels.held_out_share",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "seed": "data_seed",
    "columns": "prompts.columns",
    "prompts": "max_prompts",
    "responses": "labels.responses",
    "rollouts": "labels.rollouts",
    "split": "labels.split",
    "temperature": "labels.sampling.temperature",
    "max_length": "labels.sampling.max_new_tokens",
}


def main(run: Run, config: LabelStepsConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Who answers what, and what is right.
    rows = config.prompts.rows(rows=config.max_prompts)
    steps = run.make(
        "steps",
        label_steps,
        config=config.labels,
        policy=find_model(run, config.model, "model"),
        prompts=find_prompts(run, config.data, "train", rows, config.data_seed),
        checker=checker_of(run, config),
        data_seed=config.data_seed,
    )
    return dict(steps.metrics)


def checker_of(run: Run, config: LabelStepsConfig) -> Deferred[Any]:
    """Return what says whether a result is right: the checker that is named, or known answers."""
    if config.checker is not None:
        (scorer,) = reward_scorers(run, config.checker)
        return scorer
    file = Path(config.data).expanduser()
    if not file.is_file():
        raise ConfigError(
            f"{config.data!r} is not one file of prompts with references, so no answers are known. "
            "Name a checker: a file of terms with one of kind answer, code or matches."
        )
    return defer(AnswerScorer, answers=SourceFile(file), compare=config.compare)
