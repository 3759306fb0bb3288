"""``plumbline plan``: memory and time of a recipe's trainings, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from plumbline.commands.options import ConfigName, Overrides
from plumbline.errors import ConfigError

DEFAULT_PROMPT = 256


def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe by name, or the path of a script.")],
    config: ConfigName = None,
    overrides: Overrides = None,
    model: Annotated[
        str | None,
        typer.Option(help="0.5b, 1b, 8b, 70b, or a folder; by default the recipe's own model."),
    ] = None,
    gpu: Annotated[str, typer.Option(help="A kind of GPU, or cpu.")] = "h100",
    processes: Annotated[int, typer.Option(min=1, help="How many GPUs share a training.")] = 1,
    sharding: Annotated[
        str, typer.Option(help="ddp, zero2, zero3 or fsdp2: what each process holds a share of.")
    ] = "ddp",
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows that are trained on, for the time.")
    ] = None,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a prompt, where responses are sampled.")
    ] = DEFAULT_PROMPT,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price of one GPU for an hour, for the cost.")
    ] = None,
) -> None:
    """Show what memory the trainings of a recipe need, and about how long they take.

    Rows are taken to be as long as max_length allows, so this is what they need at most.
    """
    from plumbline.commands.recipe_book import find
    from plumbline.terminal import Terminal
    from plumbline.training.memory_plan import CARDS, SHARDINGS

    values = find(recipe).load(config, overrides or [])
    on_cpu = gpu == "cpu"
    if not on_cpu and gpu not in CARDS:
        raise ConfigError(f"--gpu {gpu} is none of {', '.join(CARDS)} and cpu.")
    if sharding not in SHARDINGS:
        raise ConfigError(f"--sharding {sharding} is none of {', '.join(SHARDINGS)}.")
    shape = shape_of(model or _own_model(values))
    shares = SHARDINGS[sharding].weights and processes > 1
    setting = Setting(on_cpu, processes, prompt_tokens, shares)
    trainings = dict(trainings_of(values, shape, setting))
    if not trainings:
        raise ConfigError(f"{recipe} trains nothing, so there is nothing to plan.")
    plans = [
        Plan.of(name, work, None if on_cpu else CARDS[gpu], SHARDINGS[sharding], processes, rows)
        for name, work in trainings.items()
    ]
    _show(Terminal(), plans, shape.parameters, price, processes)


class Setting(NamedTuple):
    """Where trainings run."""

    on_cpu: bool
    processes: int
    prompt_tokens: int
    shares: bool = False
    """Whether each process holds a share of the weights."""


class Work(NamedTuple):
    """One training: what it holds, and how much it does."""

    training: Any
    tokens_of_row: int
    """Tokens of a row of data; of a prompt with its response, where responses are sampled."""
    steps_rows: int | None
    """Rows of the whole training where the settings say so; else the rows of the data count."""
    epochs: float
    sampled: int = 0
    """Responses that are sampled in all."""


class Plan(NamedTuple):
    """What one training needs."""

    name: str
    memory: Any
    room: int | None
    """Bytes that there are; None where it is not known."""
    seconds: float | None

    @classmethod
    def of(
        cls, name: str, work: Work, card: Any, sharding: Any, processes: int, rows: int | None
    ) -> Plan:
        """Return the plan of a training on a card; on a CPU (None) time is not estimated."""
        from plumbline.training.memory_plan import learning_seconds, memory_of, sampling_seconds

        memory = memory_of(work.training, sharding, processes)
        count = work.steps_rows if work.steps_rows is not None else rows
        seconds = None
        if card is not None and count is not None:
            tokens = work.epochs * count * work.tokens_of_row * work.training.trained
            seconds = learning_seconds(work.training, tokens, card, processes)
            seconds += sampling_seconds(work.training, work.sampled, card, processes)
        return cls(name, memory, None if card is None else card.memory, seconds)


def shape_of(model: str) -> Any:
    """Return the shape of a model by size or folder; raise `ConfigError` where it is neither."""
    from plumbline.runs.artifacts import read_json
    from plumbline.training.memory_plan import MODELS, Shape

    if model in MODELS:
        return MODELS[model]
    file = Path(model).expanduser() / "config.json"
    if not file.is_file():
        raise ConfigError(
            f"The shape of the model {model} is not known here. Give --model a folder with a "
            f"config.json, or one of {', '.join(MODELS)}."
        )
    try:
        return Shape.of(read_json(file))
    except KeyError as error:
        raise ConfigError(
            f"{file} has no {error}: it is not a decoder that can be planned."
        ) from None


def trainings_of(config: Any, shape: Any, setting: Setting) -> Iterator[tuple[str, Work]]:
    """Yield the trainings that a recipe's config has, by the name of their part."""
    from preference.config import DPOConfig, KTOConfig, OnlineConfig
    from reward.config import RewardConfig
    from rl.config import PPOConfig
    from sft.config import SFTConfig

    planners: Mapping[type, Callable[..., Work]] = {
        SFTConfig: lambda part: _on_rows(part, shape, setting, responses=1),
        RewardConfig: lambda part: _on_rows(part, shape, setting, responses=2),
        DPOConfig: lambda part: _on_rows(part, shape, setting, responses=2, compares=True),
        KTOConfig: lambda part: _on_rows(
            part, shape, setting, responses=2, compares=True, of_one_prompt=False
        ),
        OnlineConfig: lambda part: _online(part, shape, setting),
        PPOConfig: lambda part: _ppo(part, shape, setting),
    }
    for name in type(config).model_fields:
        part = getattr(config, name)
        if type(part) in planners:
            yield name, planners[type(part)](part)


def _reads_by_ours(part: Any, shape: Any, setting: Setting) -> bool:
    """Return whether pairs and episodes are read by our own passes, as far as one can tell.

    These read the prompt of a pair once, and keep more of each token for the backward pass. A model
    in shares is read by transformers' own, and on a CPU so is a larger one with an adapter.
    """
    from plumbline.lm.trunk import MOST_WITH_ADAPTER

    if setting.shares:
        return False
    fits = part.tuning.method == "full" or shape.parameters <= MOST_WITH_ADAPTER
    return fits or not setting.on_cpu


def _of_pair(prompt: int, longest: int, *, ours: bool) -> int:
    """Return the tokens of a pair whose rows have ``longest``, of which ``prompt`` are shared."""
    return 2 * longest - (min(prompt, longest) if ours else 0)


def _numbers(part: Any, setting: Setting) -> dict[str, Any]:
    """Return what all trainings have: number formats, adapters, moments."""
    tuning = part.tuning
    optimizer = getattr(part, "training", part).optimizer
    return {
        "rank": None if tuning.method == "full" else tuning.rank,
        "held": 4 if setting.on_cpu else (1 if tuning.quantized else 2),
        "computed": 4 if setting.on_cpu else 2,
        "moments": 2 if "8bit" in optimizer else 8,
    }


def _on_rows(
    part: Any,
    shape: Any,
    setting: Setting,
    *,
    responses: int,
    compares: bool = False,
    of_one_prompt: bool = True,
) -> Work:
    """Return the plan of a training on rows of a dataset.

    ``responses``: of a row, which may be ``of_one_prompt``. ``compares``: with a reference.
    """
    from plumbline.training.memory_plan import Training

    settings = part.training
    ours = responses == 2 and _reads_by_ours(part, shape, setting)
    tokens = part.max_length
    if responses == 2:
        tokens = _of_pair(setting.prompt_tokens, part.max_length, ours=ours and of_one_prompt)
    training = Training(
        shape=shape,
        tokens=-(-settings.batch_size // setting.processes) * tokens,
        frozen=int(compares and part.tuning.method == "full"),
        keeps=1.2 if ours else 1.0,
        checkpointing=settings.activation_checkpointing,
        **_numbers(part, setting),
    )
    steps = settings.max_steps
    rows = None if steps is None else steps * settings.examples_per_step
    return Work(training, tokens, rows, 1.0 if steps is not None else settings.epochs)


def _ppo(part: Any, shape: Any, setting: Setting) -> Work:
    """Return the plan of PPO; its reward model is an adapter on the base where the policy is."""
    from plumbline.training.memory_plan import Training

    full = part.tuning.method == "full"
    own_values = part.has_values and part.value.trunk == "own"
    length = setting.prompt_tokens + part.sampling.max_new_tokens
    tokens = part.micro_batch_size * length
    if not setting.on_cpu:
        tokens = max(part.micro_batch_tokens or 1024, length)
    rows = -(-min(part.batch_size, part.sampling.batch_size) // setting.processes)
    moving = part.kl.reference_decay is not None
    training = Training(
        shape=shape,
        tokens=tokens,
        trained=2 if own_values else 1,
        frozen=(2 + moving) if full else 0,
        keeps=1.2 if _reads_by_ours(part, shape, setting) else 1.0,
        checkpointing=part.activation_checkpointing,
        sampled=(rows, length),
        **_numbers(part, setting),
    )
    responses = part.iterations * part.batch_size
    return Work(training, length, responses, part.ppo_epochs, responses)


def _online(part: Any, shape: Any, setting: Setting) -> Work:
    """Return the plan of a training on pairs of the policy's own responses."""
    from plumbline.training.memory_plan import Training

    length = setting.prompt_tokens + part.sampling.max_new_tokens
    responses = part.prompts_per_round * part.responses
    rows = -(-min(responses, part.sampling.batch_size) // setting.processes)
    ours = _reads_by_ours(part, shape, setting)
    tokens = _of_pair(setting.prompt_tokens, length, ours=ours)
    training = Training(
        shape=shape,
        tokens=-(-part.minibatch_size // setting.processes) * tokens,
        frozen=2 if part.tuning.method == "full" else 0,
        keeps=1.2 if ours else 1.0,
        sampled=(rows, length),
        **_numbers(part, setting),
    )
    pairs = part.rounds * part.prompts_per_round
    return Work(training, tokens, pairs, part.epochs, part.rounds * responses)


def _own_model(config: Any) -> str:
    """Return the model that a recipe's config names."""
    for name in ("model", "base"):
        value = getattr(config, name, None)
        if value is not None:
            return str(getattr(value, "name_or_path", value))
    raise ConfigError("The recipe names no model. Give --model.")


def _show(
    console: Any, plans: Sequence[Plan], parameters: int, price: float | None, processes: int
) -> None:
    from rich.table import Table

    from plumbline.runs.progress import duration, size

    console.print(f"A model of {parameters / 1e9:.2f} billion parameters; memory of each process:")
    names = ("parameters", "gradients", "optimizer", "activations", "cache")
    columns = ["training", *names, "in all", "fits", "time"]
    if price is not None:
        columns.append("cost")
    table = Table(*columns, box=None, pad_edge=False)
    for plan in plans:
        cells = [plan.name, *(size(getattr(plan.memory, name)) for name in names)]
        cells.append(size(plan.memory.total))
        fits = None if plan.room is None else plan.memory.total <= 0.9 * plan.room
        cells.append("" if fits is None else ("yes" if fits else "no"))
        cells.append("" if plan.seconds is None else duration(plan.seconds))
        if price is not None and plan.seconds is not None:
            cells.append(f"{price * processes * plan.seconds / 3600:.2f}")
        table.add_row(*cells)
    console.print(table)
    if any(plan.seconds is None for plan in plans) and plans[0].room is not None:
        console.print("Give --rows for the time of a training whose settings say epochs.")
