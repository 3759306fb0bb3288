"""``plumbline train …`` and ``plumbline pairs``: one stage alone, with short names for settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_type_hints

import typer

from plumbline.commands.options import HOME, Home, Overrides

train = typer.Typer(
    help="Train one stage alone, from your model on your data.",
    no_args_is_help=True,
)
_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
Command = Callable[..., None]

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


def of_a_training(
    lr: LearningRate = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    tuning: Tuning = None,
    lora_rank: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    report_to: ReportTo = None,
) -> None:
    """Declare the options of every training."""


def of_a_run(
    seed: Seed = None,
    config: Config = None,
    overrides: Overrides = None,
    name: Name = None,
    home: Home = HOME,
) -> None:
    """Declare the options of every command here."""


def runs(recipe: str, *shared: Command) -> Callable[[Command], Command]:
    """Make a command of a function that declares options: it runs a recipe of one stage.

    It has the options of ``shared``, too, and those of every run.
    """

    def command_of(own: Command) -> Command:
        def command(context: typer.Context, **_: object) -> None:
            _run(recipe, context)

        parameters = {"context": inspect.Parameter("context", _KIND, annotation=typer.Context)}
        for function in (own, *shared, of_a_run):
            for option in _options_of(function):
                parameters.setdefault(option.name, option)
        command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        command.__annotations__ = {name: each.annotation for name, each in parameters.items()}
        command.__name__, command.__doc__ = own.__name__, own.__doc__
        return command

    return command_of


_KIND = inspect.Parameter.KEYWORD_ONLY


def _options_of(function: Command) -> list[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return [
        option.replace(kind=_KIND, annotation=hints[option.name])
        for option in inspect.signature(function).parameters.values()
    ]


@train.command(context_settings=_SETTINGS)
@runs("train_sft", of_a_training)
def sft(
    model: Model,
    data: Data,
    eval_data: EvalData = None,
    columns: Columns = None,
) -> None:
    """Train a policy on demonstrations. Settings: `plumbline config train_sft`."""


@train.command(context_settings=_SETTINGS)
@runs("train_reward", of_a_training)
def reward(
    model: Model,
    data: Data,
    eval_data: EvalData = None,
    columns: Columns = None,
) -> None:
    """Train a reward model on preferences. Settings: `plumbline config train_reward`."""


@train.command("process-reward", context_settings=_SETTINGS)
@runs("train_process_reward", of_a_training)
def process_reward(
    model: Model,
    data: Annotated[
        str, typer.Option(help="Labelled steps: a file, or what `plumbline steps` made.")
    ],
) -> None:
    """Train a process reward model on steps. Settings: `plumbline config train_process_reward`."""


@train.command(context_settings=_SETTINGS)
@runs("train_dpo", of_a_training)
def dpo(
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
) -> None:
    """Train a policy on preferences by DPO. Settings: `plumbline config train_dpo`."""


@train.command(context_settings=_SETTINGS)
@runs("train_kto", of_a_training)
def kto(
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
) -> None:
    """Train a policy on thumbs up and down by KTO. Settings: `plumbline config train_kto`."""


@train.command(context_settings=_SETTINGS)
@runs("train_ppo", of_a_training)
def ppo(
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
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the responses of a round.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Responses in each round.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of a response.")] = None,
) -> None:
    """Train a policy by PPO against a reward model. Settings: `plumbline config train_ppo`."""


@train.command(context_settings=_SETTINGS)
@runs("train_classifier", of_a_training)
def classifier(
    model: Model,
    data: Data,
) -> None:
    """Train a text classifier on texts with labels. Settings: `plumbline config train_classifier`.

    The data are a table with the columns text and label; a list of labels for several at once.
    """


@train.command(context_settings=_SETTINGS)
@runs("train_embeddings", of_a_training)
def embeddings(
    model: Model,
    data: Data,
) -> None:
    """Train an embedding model on pairs of texts. Settings: `plumbline config train_embeddings`.

    The data are a table with the columns query and positive.
    """


@runs("sample_pairs")
def pairs(
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
) -> None:
    """Sample pairs to label, or for DPO. Settings: `plumbline config sample_pairs`."""


@runs("label_steps")
def steps(
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
) -> None:
    """Label steps of responses by what follows from them. Settings: `plumbline config label_steps`.

    The result is what `plumbline train process-reward` learns from.
    """


def _run(recipe: str, context: typer.Context) -> None:
    """Run a recipe of one stage with the options that were given, by their short names."""
    from plumbline.commands import recipe_book
    from plumbline.commands.run_recipe import run_recipe

    options = {name: value for name, value in context.params.items() if value is not None}
    config, name, home = options.pop("config", None), options.pop("name", None), options.pop("home")
    overrides = options.pop("overrides", None)
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
