"""Training the SFT policy on demonstrations, on TRL's SFTTrainer and the shared skeleton."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plumbline.data.records import columns_of, iterate_dataset
from plumbline.dropped import DroppedFile
from plumbline.errors import ConfigError
from plumbline.hooks import EvaluationHook
from plumbline.lm.load import trainable_causal_lm
from plumbline.lm.model_folder import source_of
from plumbline.lm.save import model_card, save_model
from plumbline.lm.sharding import gathered, in_shares
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.encoded_rows import limit_of
from plumbline.training.fit import Evaluate, fit
from plumbline.training.held_out import HeldOutWatch
from plumbline.training.row_file import empty_folder, file_in
from plumbline.training.sharding import loaded
from sft.answer_batches import WRONG_IDS
from sft.config import SFTConfig
from sft.tasks import TASK, join_tasks
from sft.tokenized import TOKEN_WEIGHTS, tokenize
from sft.wrong_answers import WRONG_ANSWERS

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from plumbline.lm.context import LengthLimit
    from sft.tasks import Tasks
    from sft.trainer import HeldOut, SFTTrainer


@stage("policy", trains_in="several processes", shares_weights=True)
def train_sft(
    stage: Stage,
    *,
    config: SFTConfig,
    base: Artifact,
    demonstrations: Artifact,
    seed: int,
    hook: EvaluationHook | None = None,
    others: Mapping[str, Artifact] | None = None,
) -> Mapping[str, float | None]:
    """Train a policy by supervised fine-tuning; the loss is on what the assistant says.

    ``hook`` judges it on the way, with the base as the reference. ``others`` are demonstrations of
    other tasks by name, such as those that the base learnt before.
    """
    silence_libraries()
    from transformers import set_seed

    # 1. Conversations become ids and labels, in our one place for that.
    tokenizer = load_tokenizer(base.path)
    dropped = DroppedFile(stage.folder)
    rows = _tokenized(stage, config, base, tokenizer, demonstrations, others or {}, dropped, seed)

    # 2. The base, whole or with an adapter.
    set_seed(seed)
    trainer = _trainer(stage, config, base, tokenizer, rows, seed)

    # 3. Train, with the harness at its milestones.
    evaluate = _evaluator(stage, hook, trainer.model, tokenizer, base, config)
    watch = trainer.watch_held_out(config.held_out)
    fitted = fit(trainer, stage, "supervised fine-tuning", config.evaluations, evaluate)
    if not stage.writes and not in_shares(trainer.model):
        return {}  # the first process evaluates and saves
    rolled_back = _roll_back(stage, watch)

    # 4. How well does it predict demonstrations that it has not seen?
    held_out = _save(stage, config, base, tokenizer, trainer, watch, len(rows.train))
    if watch is None:
        stage.metrics.log(fitted.steps, {"held_out_loss": held_out.loss})
    return {
        **held_out.metrics(),
        "train_rows": float(len(rows.train)),
        "dropped_rows": float(len(dropped)),
        **({} if watch is None else {"best_step": float(watch.best_step)}),
        **({} if rows.tasks is None else _of_others(trainer)),
        **({} if rolled_back is None else {"rolled_back_to_step": float(rolled_back)}),
        **fitted.metrics,
    }


class _Rows(NamedTuple):
    """Rows as ids and labels, those of other tasks among them."""

    train: Dataset
    test: Dataset
    tasks: Tasks | None
    """Which rows are of which task; None where there is one task."""
    limit: LengthLimit


def _tokenized(
    stage: Stage,
    config: SFTConfig,
    base: Artifact,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Artifact,
    others: Mapping[str, Artifact],
    dropped: DroppedFile,
    seed: int,
) -> _Rows:
    """Return the rows of all tasks; refuse what cannot be learnt from them as the config asks."""
    limit = limit_of(base.path, config.max_length)
    folder = empty_folder(stage, demonstrations, *others.values())

    def tokenized(artifact: Artifact, name: str) -> tuple[Dataset, Dataset]:
        train, test = (
            tokenize(
                iterate_dataset(artifact.path, split), tokenizer, limit, dropped,
                file_in(folder, f"{name}-{split}.arrow"),
                last_turn_only=config.loss_on == "last_turn",
                wrong_answers=bool(config.wrong_answer_losses),
            )
            for split in ("train", "test")
        )  # fmt: skip
        return train, test

    train, test = tokenized(demonstrations, "new")
    more, tasks = {name: tokenized(other, name) for name, other in others.items()}, None
    stage.report_dropped(dropped)
    _check_wrong_answers(stage, config, train, demonstrations)
    if more:
        train, tasks = join_tasks(train, more, config, seed, folder)
    _check_packing(config, train)
    return _Rows(train, test, tasks, limit)


def _trainer(
    stage: Stage,
    config: SFTConfig,
    base: Artifact,
    tokenizer: PreTrainedTokenizerBase,
    rows: _Rows,
    seed: int,
) -> SFTTrainer:
    """Return TRL's trainer, as ours resumes it, with the model that it trains."""
    import trl

    from sft.trainer import SFTTrainer

    return SFTTrainer(
        model=loaded(
            lambda: trainable_causal_lm(base.path, config.tuning),
            config.tuning,
            bfloat16=config.training.computes_in_bfloat16,
        ),
        tuning=config.tuning,
        args=trl.SFTConfig(
            **config.training.trl_arguments(stage.scratch, seed)
            | ({"packing": True, "max_length": rows.limit.tokens} if config.packing else {})
            | ({} if rows.tasks is None else {"num_train_epochs": 1.0}),  # its sampler has all
            eval_packing=False,
            neftune_noise_alpha=config.neftune_alpha,
            per_device_eval_batch_size=4 * config.training.batch_size,
        ),
        train_dataset=rows.train,
        eval_dataset=rows.test,
        processing_class=tokenizer,
        tasks=rows.tasks,
        wrong_answer_losses=config.wrong_answer_losses,
    )


def _save(
    stage: Stage,
    config: SFTConfig,
    base: Artifact,
    tokenizer: PreTrainedTokenizerBase,
    trainer: SFTTrainer,
    watch: HeldOutWatch | None,
    rows: int,
) -> HeldOut:
    """Save the weights that were asked for; return how well they predict held-out rows.

    Where the best weights were watched for, the others are in a folder beside the policy.
    """

    def save(folder: Path) -> HeldOut:
        held_out = trainer.held_out()
        card = _card(config, rows, base, held_out)
        save_model(
            trainer.model,
            tokenizer,
            folder,
            source=base.path,
            card=card,
            writes=stage.writes,
        )
        return held_out

    if watch is None:
        return save(stage.folder)
    keeps_best = config.held_out.keep == "best"
    with watch.best_weights_in_model():
        best = save(stage.folder if keeps_best else stage.folder / "best")
    final = save(stage.folder / "final" if keeps_best else stage.folder)
    return best if keeps_best else final


def _roll_back(stage: Stage, watch: HeldOutWatch | None) -> int | None:
    """Give the model the last weights that are allowed; return their step, None if these are."""
    if watch is None or watch.allows is None or watch.is_allowed:
        return None
    stage.say(
        "[yellow]another task's held-out loss rose by more than other_tasks.max_rise: the policy "
        f"is that of step {watch.allowed_step}[/yellow]"
    )
    watch.use_allowed()
    return watch.allowed_step


def _of_others(trainer: SFTTrainer) -> dict[str, float]:
    """Return held-out losses of the other tasks, and how far they rose."""
    assert trainer.tasks is not None
    losses = trainer.losses_of_others()
    return losses | trainer.tasks.drifts(losses)


def _check_packing(config: SFTConfig, train: Dataset) -> None:
    """Refuse packed rows whose tokens have weights: TRL's packing keeps ids and labels alone."""
    if config.packing and TOKEN_WEIGHTS in train.column_names:
        raise ConfigError(
            "sft.packing is on, and the demonstrations have weights, which packed rows have no "
            "place for. Leave sft.packing out."
        )
    if config.packing and TASK in train.column_names:
        raise ConfigError(
            "sft.packing is on, and there are several tasks, whose rows are drawn one by one. "
            "Leave sft.packing out."
        )


def _card(config: SFTConfig, rows: int, base: Artifact, held_out: HeldOut) -> str:
    return model_card(
        "Policy after supervised fine-tuning",
        f"Trained with {config.tuning.method} tuning on {rows} demonstrations "
        f"from {base.id}; held-out loss {held_out.loss:.3f}.",
    )


def _evaluator(
    stage: Stage,
    hook: EvaluationHook | None,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    base: Artifact,
    config: SFTConfig,
) -> Evaluate | None:
    """Return what evaluates the policy in training; the reference is the base."""
    from plumbline.lm.policy import Policy

    if hook is None:
        return None
    under_new_adapter = config.tuning.has_adapter and source_of(base.path).adapter is None
    reference = (
        Policy(model, tokenizer, adapter=None) if under_new_adapter else Policy.load(base.path)
    )
    current, folder = Policy(model, tokenizer), stage.folder / "evaluations"

    def evaluate(step: int) -> Mapping[str, float]:
        with gathered(model):
            return hook(current, reference, step, folder)

    return evaluate


def _check_wrong_answers(
    stage: Stage, config: SFTConfig, train: Dataset, demonstrations: Artifact
) -> None:
    """Refuse losses over wrong answers where there are none; say where they are not learnt from."""
    if config.wrong_answer_losses:
        if not any(train[WRONG_IDS]):
            raise ConfigError(
                f"sft.wrong_answer_losses is {', '.join(config.wrong_answer_losses)}, and no "
                "demonstration has wrong answers. Add a column wrong_answers (docs/tuning.md), or "
                "leave the setting out."
            )
        return
    if WRONG_ANSWERS not in columns_of(demonstrations.path, "train"):
        return
    count = sum(bool(row[WRONG_ANSWERS]) for row in iterate_dataset(demonstrations.path, "train"))
    if count:
        stage.say(
            f"{count:,} demonstrations have wrong answers, which are not learnt from: set "
            "sft.wrong_answer_losses (docs/tuning.md)"
        )
