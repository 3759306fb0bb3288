"""``plumbline train …`` and ``plumbline pairs``: one stage alone, with short names for settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumbline.commands.options import HOME, Home, Overrides

train = typer.Typer(
    help="Train one stage alone, from your model on your data.",
    no_args_is_help=True,
)
_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}

Model = Annotated[
    str, typer.Option(help="Where to start: a hub name, a folder, run:stage, an artefact's id.")
]
Data = Annotated[
    str, typer.Option(help="A file, a dataset of the hub, run:stage, or an artefact's id.")
]
EvalData = Annotated[
    str | None,
    typer.Option(help="Held-out data, named likewise; else a share of the prompts is held out."),
]
Reference = Annotated[
    str | None, typer.Option(help="The reference, named as the model is; else the model itself.")
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="PART=COLUMN,…",
        help="Which column holds which part, as in prompt=question,chosen=better.",
    ),
]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the data.")]
BatchSize = Annotated[int | None, typer.Option(help="Examples in one pass.")]
MaxLength = Annotated[int | None, typer.Option(help="Most tokens of a prompt with its response.")]
Tuning = Annotated[str | None, typer.Option(help="full, lora, qlora, … (docs/tuning.md).")]
LoraRank = Annotated[int | None, typer.Option(help="Rank of the adapter.")]
LoraAlpha = Annotated[
    int | None, typer.Option(help="Alpha of the adapter; twice --lora-rank where only that is set.")
]
ReportTo = Annotated[str | None, typer.Option(help="Trackers, such as tensorboard,wandb.")]
Config = Annotated[
    str | None, typer.Option("--config", "-c", metavar="FILE", help="A file of settings (YAML).")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the training.")]
Name = Annotated[str | None, typer.Option(help="Name of the run.")]


@train.command(context_settings=_SETTINGS)
def sft(
    context: typer.Context,
    model: Model,
    data: Data,
    eval_data: EvalData = None,
    columns: Columns = None,
    lr: LearningRate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    tuning: Tuning = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    report_to: ReportTo = None,
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Train a policy on demonstrations. Settings: `plumbline config train_sft`."""
    _run("train_sft", context, overrides)


@train.command(context_settings=_SETTINGS)
def reward(
    context: typer.Context,
    model: Model,
    data: Data,
    eval_data: EvalData = None,
    columns: Columns = None,
    lr: LearningRate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    tuning: Tuning = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    report_to: ReportTo = None,
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Train a reward model on preferences. Settings: `plumbline config train_reward`."""
    _run("train_reward", context, overrides)


@train.command("process-reward", context_settings=_SETTINGS)
def process_reward(
    context: typer.Context,
    model: Model,
    data: Annotated[
        str, typer.Option(help="Labelled steps: a file, or what `plumbline steps` made.")
    ],
    lr: LearningRate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    tuning: Tuning = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    report_to: ReportTo = None,
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Train a process reward model on steps. Settings: `plumbline config train_process_reward`."""
    _run("train_process_reward", context, overrides)


@train.command(context_settings=_SETTINGS)
def dpo(
    context: typer.Context,
    model: Model,
    data: Data,
    eval_data: EvalData = None,
    reference: Reference = None,
    reward: Annotated[
        str | None,
        typer.Option(help="A reward model that scores responses in evaluations, named likewise."),
    ] = None,
    columns: Columns = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the implied KL penalty.")] = None,
    loss: Annotated[str | None, typer.Option(help="The loss: sigmoid, ipo, hinge, …")] = None,
    lr: LearningRate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    tuning: Tuning = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    report_to: ReportTo = None,
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Train a policy on preferences by DPO. Settings: `plumbline config train_dpo`."""
    _run("train_dpo", context, overrides)


@train.command(context_settings=_SETTINGS)
def kto(
    context: typer.Context,
    model: Model,
    data: Annotated[
        str, typer.Option(help="Responses that were liked or not: a file, or a stage's.")
    ],
    reward: Annotated[
        str | None, typer.Option(help="A reward model that scores responses in evaluations.")
    ] = None,
    columns: Columns = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the implied KL penalty.")] = None,
    loss: Annotated[str | None, typer.Option(help="The loss: kto, bco, apo_zero_unpaired.")] = None,
    lr: LearningRate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    tuning: Tuning = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    report_to: ReportTo = None,
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Train a policy on thumbs up and down by KTO. Settings: `plumbline config train_kto`."""
    _run("train_kto", context, overrides)


@train.command(context_settings=_SETTINGS)
def ppo(
    context: typer.Context,
    model: Model,
    data: Annotated[str, typer.Option(help="Prompts: a file, a dataset, run:stage.")],
    reward: Annotated[
        str,
        typer.Option(help="The reward model: any sequence classifier, named as the model is."),
    ],
    eval_data: EvalData = None,
    reference: Reference = None,
    columns: Columns = None,
    kl: Annotated[float | None, typer.Option(help="Weight of the KL penalty.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of sampling and learning.")] = None,
    lr: LearningRate = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the responses of a round.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Responses in each round.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of a response.")] = None,
    tuning: Tuning = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    report_to: ReportTo = None,
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Train a policy by PPO against a reward model. Settings: `plumbline config train_ppo`."""
    _run("train_ppo", context, overrides)


@train.command(context_settings=_SETTINGS)
def classifier(
    context: typer.Context,
    model: Model,
    data: Data,
    lr: LearningRate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    tuning: Tuning = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    report_to: ReportTo = None,
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Train a text classifier on texts with labels. Settings: `plumbline config train_classifier`.

    The data are a table with the columns text and label; a list of labels for several at once.
    """
    _run("train_classifier", context, overrides)


@train.command(context_settings=_SETTINGS)
def embeddings(
    context: typer.Context,
    model: Model,
    data: Data,
    lr: LearningRate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    tuning: Tuning = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    report_to: ReportTo = None,
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Train an embedding model on pairs of texts. Settings: `plumbline config train_embeddings`.

    The data are a table with the columns query and positive.
    """
    _run("train_embeddings", context, overrides)


def pairs(
    context: typer.Context,
    model: Model,
    data: Annotated[str, typer.Option(help="Prompts: a file, a dataset, run:stage.")],
    reward: Annotated[
        str | None, typer.Option(help="A reward model that ranks the responses.")
    ] = None,
    pairing: Annotated[
        str | None, typer.Option(help="With it: best_worst, all, near_gap or rso.")
    ] = None,
    columns: Columns = None,
    prompts: Annotated[int | None, typer.Option(help="Prompts to answer.")] = None,
    responses: Annotated[int | None, typer.Option(help="Responses to each prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of a response.")] = None,
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Sample pairs to label, or for DPO. Settings: `plumbline config sample_pairs`."""
    _run("sample_pairs", context, overrides)


def steps(
    context: typer.Context,
    model: Model,
    data: Annotated[str, typer.Option(help="Prompts, with known answers or a checker.")],
    checker: Annotated[
        str | None, typer.Option(help="What says whether a result is right: a file of terms.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="Without it: exact, numeric or contains, with the answer.")
    ] = None,
    columns: Columns = None,
    prompts: Annotated[int | None, typer.Option(help="Prompts to answer.")] = None,
    responses: Annotated[int | None, typer.Option(help="Responses to each prompt.")] = None,
    rollouts: Annotated[int | None, typer.Option(help="Continuations behind each step.")] = None,
    split: Annotated[str | None, typer.Option(help="Steps are sentences or lines.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of a response.")] = None,
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Label steps of responses by what follows from them. Settings: `plumbline config label_steps`.

    The result is what `plumbline train process-reward` learns from.
    """
    _run("label_steps", context, overrides)


def _run(recipe: str, context: typer.Context, overrides: list[str] | None) -> None:
    """Run a recipe of one stage with the options that were given, by their short names."""
    from plumbline.commands import recipe_book
    from plumbline.commands.run_recipe import run_recipe

    options = {name: value for name, value in context.params.items() if value is not None}
    config, name, home = options.pop("config", None), options.pop("name", None), options.pop("home")
    options.pop("overrides", None)
    script = recipe_book.find(recipe)
    run_recipe(
        script,
        config,
        [
            *recipe_book.from_short_names(script, options),
            *(overrides or []),
            *recipe_book.as_overrides(context.args),
        ],
        Path(home),
        name,
    )
