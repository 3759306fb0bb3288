"""``plumbline plan``: memory and time of a recipe's trainings, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import typer

from plumbline.commands.options import ConfigName, Overrides
from plumbline.commands.planned_model import shape_of
from plumbline.errors import ConfigError

DEFAULT_PROMPT = 256
_PLANNED = (
    "Plans are made of supervised fine-tuning, reward models, DPO, KTO, online methods and PPO."
)


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
    from plumbline.commands.settings import resolved
    from plumbline.runs.shardings import SHARDINGS
    from plumbline.terminal import Terminal
    from plumbline.training.memory_plan import CARDS

    values = resolved(find(recipe), config, overrides or [])
    gpu = gpu.lower()
    on_cpu = gpu == "cpu"
    if not on_cpu and gpu not in CARDS:
        raise ConfigError(
            f"--gpu {gpu} is none of {', '.join(CARDS)} and cpu. For another one take the one of "
            "these that is most like it: memory does not depend on it."
        )
    if sharding not in SHARDINGS:
        raise ConfigError(f"--sharding {sharding} is none of {', '.join(SHARDINGS)}.")
    unplanned = _without_a_plan(recipe, values)
    shape, held = shape_of(model, values)
    shares = SHARDINGS[sharding].weights and processes > 1
    setting = Setting(on_cpu, processes, prompt_tokens, shares, held)
    trainings = dict(trainings_of(values, shape, setting))
    plans = [
        Plan.of(name, work, None if on_cpu else CARDS[gpu], SHARDINGS[sharding], processes, rows)
        for name, work in trainings.items()
    ]
    console = Terminal()
    _show(console, plans, shape.parameters, price, processes)
    _show_problems(console, trainings, processes)
    if unplanned:
        console.print(f"Not planned: {', '.join(unplanned)}. {_PLANNED}", soft_wrap=True)


def _without_a_plan(recipe: str, config: Any) -> list[str]:
    """Return the trainings of a recipe that are not planned; raise where none of them is."""
    parts = {name: getattr(config, name) for name in type(config).model_fields}
    unplanned = [
        name
        for name, part in parts.items()
        if hasattr(part, "tuning") and type(part) not in planners()
    ]
    if not any(type(part) in planners() for part in parts.values()):
        raise ConfigError(f"{recipe} has no training that can be planned. {_PLANNED}")
    return unplanned


def _show_problems(console: Any, trainings: Mapping[str, Work], processes: int) -> None:
    """Say what of a plan would be refused."""
    for name, work in trainings.items():
        if work.batch_size % processes:
            console.print(
                f"{name}: {processes} processes cannot share its batch of {work.batch_size}, so it "
                f"would be refused. Set a multiple of {processes}.",
                soft_wrap=True,
            )


class Setting(NamedTuple):
    """Where trainings run."""

    on_cpu: bool
    processes: int
    prompt_tokens: int
    shares: bool = False
    """Whether each process holds a share of the weights."""
    held: int = 2
    """Bytes of a weight as the model's files hold it."""


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
    readings: int = 0
    """How often a row is read without learning from it, as by a reference or a reward model."""
    batch_size: int = 0
    """Rows of a batch that the processes share evenly; 0 where shares need not be even."""


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
        from plumbline.training.memory_plan import (
            learning_seconds,
            memory_of,
            reading_seconds,
            sampling_seconds,
        )

        memory = memory_of(work.training, sharding, processes)
        count = work.steps_rows if work.steps_rows is not None else rows
        seconds = None
        if card is not None and count is not None:
            tokens = work.epochs * count * work.tokens_of_row * work.training.trained
            seconds = learning_seconds(work.training, tokens, card, processes)
            read = work.readings * count * work.tokens_of_row
            seconds += reading_seconds(work.training, read, card, processes)
            seconds += sampling_seconds(work.training, work.sampled, card, processes)
        return cls(name, memory, None if card is None else card.memory, seconds)


def trainings_of(config: Any, shape: Any, setting: Setting) -> Iterator[tuple[str, Work]]:
    """Yield the trainings that a recipe's config has, by the name of their part."""
    for name in type(config).model_fields:
        part = getattr(config, name)
        if type(part) in planners():
            yield name, planners()[type(part)](part, shape, setting)


def planners() -> Mapping[type, Callable[..., Work]]:
    """Return how each kind of training is planned, by the class of its settings."""
    from preference.config import DPOConfig, KTOConfig, OnlineConfig
    from reward.config import RewardConfig
    from rl.config import PPOConfig
    from sft.config import SFTConfig

    return {
        SFTConfig: partial(_on_rows, responses=1),
        RewardConfig: partial(_on_rows, responses=2),
        DPOConfig: partial(_on_rows, responses=2, compares=True),
        KTOConfig: partial(_on_rows, responses=2, compares=True, of_one_prompt=False),
        OnlineConfig: _online,
        PPOConfig: _ppo,
    }


def _reads_by_ours(part: Any, shape: Any, setting: Setting) -> bool:
    """Return whether pairs and episodes are read by our own passes, as far as one can tell.

    These read the prompt of a pair once, and keep more of each token for the backward pass. A model
    in shares is read by transformers' own, and on a CPU so is a larger one with an adapter.
    """
    from plumbline.lm.trunk import MOST_WITH_ADAPTER

    if setting.shares:
        return False
    fits = not part.tuning.has_adapter or shape.parameters <= MOST_WITH_ADAPTER
    return fits or not setting.on_cpu


def _of_pair(prompt: int, longest: int, *, ours: bool) -> int:
    """Return the tokens of a pair whose rows have ``longest``, of which ``prompt`` are shared."""
    return 2 * longest - (min(prompt, longest) if ours else 0)


def _numbers(part: Any, shape: Any, setting: Setting) -> dict[str, Any]:
    """Return what all trainings have: number formats, adapters, moments."""
    tuning = part.tuning
    optimizer = getattr(part, "training", part).optimizer
    return {
        "rank": tuning.rank if tuning.has_adapter else None,
        "held": shape.quantized if tuning.quantized else 4 if setting.on_cpu else setting.held,
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
        frozen=int(compares and not part.tuning.has_adapter),
        keeps=1.2 if ours else 1.0,
        checkpointing=settings.activation_checkpointing,
        **_numbers(part, shape, setting),
    )
    steps = settings.max_steps
    rows = None if steps is None else steps * settings.examples_per_step
    return Work(
        training,
        tokens,
        rows,
        1.0 if steps is not None else settings.epochs,
        readings=int(compares),
        batch_size=settings.batch_size,
    )


def _ppo(part: Any, shape: Any, setting: Setting) -> Work:
    """Return the plan of PPO; its reward model is an adapter on the base where the policy is."""
    from plumbline.training.memory_plan import Training

    whole = not part.tuning.has_adapter
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
        frozen=(2 + moving) if whole else 0,
        keeps=1.2 if _reads_by_ours(part, shape, setting) else 1.0,
        checkpointing=part.activation_checkpointing,
        sampled=(rows, length),
        **_numbers(part, shape, setting),
    )
    responses = part.iterations * part.batch_size
    # Policy, reference, value and reward model read each response before it is learnt from.
    return Work(training, length, responses, part.ppo_epochs, responses, 3 + own_values)


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
        frozen=0 if part.tuning.has_adapter else 2,
        keeps=1.2 if ours else 1.0,
        sampled=(rows, length),
        **_numbers(part, shape, setting),
    )
    pairs = part.rounds * part.prompts_per_round
    # By the reference and the reward model.
    return Work(training, tokens, pairs, part.epochs, part.rounds * responses, 2)


def _show(
    console: Any, plans: Sequence[Plan], parameters: int, price: float | None, processes: int
) -> None:
    from rich.table import Column, Table

    from plumbline.runs.progress import duration

    largest = max(plan.memory.total for plan in plans)
    unit, size = ("GiB", 1 << 30) if largest >= 1 << 30 else ("MiB", 1 << 20)
    console.print(f"A model of {_count(parameters)} parameters; memory of each process in {unit}:")
    names = ("parameters", "gradients", "optimizer", "activations", "cache")
    titles = ["weights", "gradients", "moments", *names[3:], "total", "fits"]
    table = Table(
        Column("training", no_wrap=True),
        *(Column(title, justify="right", no_wrap=True) for title in titles),
        Column("time", justify="right"),
        *([Column("cost", justify="right", no_wrap=True)] if price is not None else []),
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for plan in plans:
        sizes = (*(getattr(plan.memory, name) for name in names), plan.memory.total)
        cells = [plan.name, *(f"{bytes_ / size:,.1f}" for bytes_ in sizes)]
        fits = None if plan.room is None else plan.memory.total <= 0.9 * plan.room
        cells.append("" if fits is None else ("yes" if fits else "no"))
        cells.append("" if plan.seconds is None else duration(plan.seconds))
        if price is not None and plan.seconds is not None:
            cells.append(f"{price * processes * plan.seconds / 3600:.2f}")
        table.add_row(*cells)
    console.print(table)
    if any(plan.seconds is None for plan in plans) and plans[0].room is not None:
        console.print("Give --rows for the time of a training whose settings say epochs.")


def _count(parameters: int) -> str:
    is_small = parameters < 1e8
    return f"{parameters / (1e6 if is_small else 1e9):.2f} {'million' if is_small else 'billion'}"
