"""Training a reward model on preferences, on the shared skeleton."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plumbline.data.records import Row, iterate_dataset, prompt_id
from plumbline.data.stored_rows import StoredRows
from plumbline.dropped import DroppedFile
from plumbline.errors import DataError
from plumbline.hooks import ScorerHook
from plumbline.lm.branches import reads_branches
from plumbline.lm.context import LengthLimit
from plumbline.lm.load import trainable_sequence_scorer
from plumbline.lm.precision import compute_precision
from plumbline.lm.save import model_card, save_model
from plumbline.lm.sharding import gathered
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive
from plumbline.training.encoded_rows import limit_of
from plumbline.training.fit import Evaluate, fit
from plumbline.training.pairs import EncodedPair, encode_pairs
from plumbline.training.row_file import empty_folder, rows_at
from plumbline.training.sharding import loaded
from reward.aspects import Aspects
from reward.calibration import CALIBRATION, Calibration, calibrated
from reward.config import RewardConfig
from reward.gate import GATE, GatePairs, fit_gate
from reward.losses import LOSSES
from reward.metrics import pairwise_accuracy
from reward.pairs import (
    RewardExample,
    count_contradictions,
    responses,
    reward_examples,
    ties_of,
)
from reward.scorer import RewardModelScorer
from reward.text_scorer import TextScorer, classifier_outputs
from reward.train_members import train_members

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from reward.trainer import RewardTrainer


@stage("reward-model", trains_in="several processes", shares_weights=True)
@compute_precision("model", "cpu")  # before any thread starts: one flag of the whole process
def train_reward_model(
    stage: Stage,
    *,
    config: RewardConfig,
    policy: Artifact,
    preferences: Artifact,
    seed: int,
    hook: ScorerHook | None = None,
) -> Mapping[str, float | None]:
    """Train a reward model that starts from a policy's weights, or an ensemble of them.

    ``hook`` judges each on the way.
    """
    silence_libraries()
    data = _read(stage, config, policy, preferences)
    if config.ensemble.members == 1:
        return train_one(stage, config, policy, data, seed, hook)
    return train_members(
        stage,
        config.ensemble,
        lambda part, own_seed: train_one(part, config, policy, data, own_seed, hook),
        seed,
        data.test,
        data.limit.tokens,
    )


class TrainingData(NamedTuple):
    """What a reward model learns from."""

    preferences: Artifact
    tokenizer: PreTrainedTokenizerBase
    limit: LengthLimit
    """Longest prompt with its response."""
    pairs: Sequence[EncodedPair]
    """Both responses of each pair, as ids, as they will be scored."""
    test: Sequence[Row]
    """Held-out pairs."""
    contradicting: int
    dropped: int
    """Rows that were left out."""


def _read(
    stage: Stage, config: RewardConfig, policy: Artifact, preferences: Artifact
) -> TrainingData:
    """Read and encode the pairs; count those that are left out."""
    tokenizer, dropped = load_tokenizer(policy.path), DroppedFile(stage.folder)
    limit = limit_of(policy.path, config.max_length)
    rows = _rows_to_train_on(preferences, config)
    pairs = encode_pairs(rows, tokenizer, limit, dropped, empty_folder(stage, preferences))
    stage.report_dropped(dropped)
    contradicting = count_contradictions(pairs)
    if contradicting:
        stage.say(f"{contradicting} pairs stand in the data both ways round, and are kept")
    test = StoredRows(preferences.path, "test", stage.scratch / "rows")
    return TrainingData(preferences, tokenizer, limit, pairs, test, contradicting, len(dropped))


def train_one(
    stage: Stage,
    config: RewardConfig,
    policy: Artifact,
    data: TrainingData,
    seed: int,
    hook: ScorerHook | None,
) -> dict[str, float | None]:
    """Train one reward model in a stage's folder; return its figures."""
    from transformers import set_seed

    # 1. The policy's weights under a new head.
    tokenizer, test, limit = data.tokenizer, data.test, data.limit.tokens
    pairs, for_gate = _split_for_gate(data.pairs, config.gate.held_out_share)
    set_seed(seed)
    model = loaded(
        lambda: trainable_sequence_scorer(policy.path, config.tuning, labels=tuple(config.aspects)),
        config.tuning,
        bfloat16=config.training.computes_in_bfloat16,
    )
    trainer = make_trainer(stage, model, tokenizer, pairs, config, data.preferences.id, seed)

    # 2. Train, with the harness at its milestones.
    evaluate = _evaluator(stage, hook, trainer.model, tokenizer, limit, _aspects(config))
    fitted = fit(trainer, stage, "reward model", config.evaluations, evaluate)
    watch = trainer.held_out_watch
    if watch is not None:
        watch.use_best()
        stage.say(f"the held-out loss was lowest after step {watch.best_step}, which is kept")
    card = model_card("Reward model", f"Trained on {len(pairs)} pairs of {data.preferences.id}.")
    save_model(
        trainer.model, tokenizer, stage.folder, source=policy.path, card=card, writes=stage.writes
    )
    if not stage.writes:
        return {}  # the first process calibrates
    for file in (GATE, CALIBRATION):  # of an attempt that was killed here
        (stage.folder / file).unlink(missing_ok=True)
    if (aspects := _aspects(config)) is not None:
        aspects.write(stage.folder)
    by_stated_weights = _add_gate(stage, config, for_gate, data, seed)

    # 3. Calibrate on held-out pairs, scored from the saved files as others will read them.
    scorer = _uncalibrated(stage.folder, limit)
    chosen, rejected = (scorer.raw_scores(*responses(test, s)) for s in ("chosen", "rejected"))
    calibrated(chosen, rejected, limit).write(stage.folder)
    return {
        "accuracy": pairwise_accuracy(chosen, rejected),
        "train_accuracy": fitted.last.get("accuracy"),
        "loss": fitted.last.get("loss"),
        **by_stated_weights,
        "pairs": float(len(pairs)),
        "contradicting_pairs": float(data.contradicting),
        "held_out_pairs": float(len(test)),
        "dropped_rows": float(data.dropped),
        "steps": float(trainer.state.global_step),
        **({} if watch is None else {"best_step": float(watch.best_step)}),
        **fitted.metrics,
    }


def _split_for_gate(
    pairs: Sequence[EncodedPair], share: float | None
) -> tuple[Sequence[EncodedPair], Sequence[EncodedPair]]:
    """Return pairs for the heads and, by prompt, those for the gate; none without a share."""
    if share is None:
        return pairs, ()
    heads, gate = _drawn(pairs, "gate", share)
    return rows_at(pairs, heads), rows_at(pairs, gate)


def _drawn(pairs: Sequence[EncodedPair], name: str, share: float) -> tuple[array[int], array[int]]:
    """Return the numbers of the pairs that are left, and of those of a share of the prompts."""
    numbers = array("l"), array("l")
    for number, pair in enumerate(pairs):
        numbers[derive(0, name, pair.prompt_id) / 2**63 < share].append(number)
    return numbers


def _add_gate(
    stage: Stage, config: RewardConfig, pairs: Sequence[EncodedPair], data: TrainingData, seed: int
) -> dict[str, float | None]:
    """Fit a gate and write it beside the model; return the accuracy by the stated weights."""
    aspects = _aspects(config)
    if config.gate.held_out_share is None or aspects is None:
        return {}
    scorer = _uncalibrated(stage.folder, data.limit.tokens)
    chosen, rejected = (scorer.raw_scores(*responses(data.test, s)) for s in ("chosen", "rejected"))
    gate = fit_gate(_gate_pairs(scorer, pairs), aspects.weights, config.gate.hidden, seed)
    gate.write(stage.folder)
    return {
        "stated_weights_accuracy": pairwise_accuracy(chosen, rejected),
        "gate_pairs": float(len(pairs)),
    }


def _uncalibrated(folder: Path, limit: int) -> RewardModelScorer:
    """Return a reward model on the scale of its own outputs; of longer texts it reads the end."""
    scorer = RewardModelScorer(folder)
    scorer.calibration = Calibration(max_length=limit)
    return scorer


def _gate_pairs(scorer: RewardModelScorer, pairs: Sequence[EncodedPair]) -> GatePairs:
    """Return what a gate learns from pairs, by a trained model of several aspects."""
    chosen, rejected = (
        scorer.outputs_of([[*pair.prompt_ids, *getattr(pair, side)] for pair in pairs])
        for side in ("chosen_ids", "rejected_ids")
    )
    return GatePairs(scorer.states_of([pair.prompt_ids for pair in pairs]), chosen, rejected)


def _rows_to_train_on(preferences: Artifact, config: RewardConfig) -> Iterable[Row]:
    """Return the training split, row by row; with pairs that were ties, where the loss knows ties.

    Ties of a held-out prompt are left out.
    """
    rows = iterate_dataset(preferences.path, "train")
    if not config.ties or "tie" not in LOSSES[config.loss].uses:
        return rows
    test = iterate_dataset(preferences.path, "test")
    held_out_prompts = {prompt_id(row["prompt"]) for row in test}
    ties = ties_of(preferences)
    return chain(rows, (row for row in ties if prompt_id(row["prompt"]) not in held_out_prompts))


def make_trainer(
    stage: Stage,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[EncodedPair],
    config: RewardConfig,
    origin: str,
    seed: int,
) -> RewardTrainer:
    """Return the trainer of a sequence classifier on pairs."""
    from transformers import TrainingArguments

    from reward.trainer import RewardTrainer

    examples: Sequence[RewardExample]
    held_out: Sequence[RewardExample] = ()
    examples, labels = reward_examples(pairs, config, origin)
    stopping = config.early_stopping
    if stopping.patience is not None:
        examples, held_out = _split(pairs, examples, stopping.held_out_share)
    training = config.training
    model.train()
    if not reads_branches(model):
        stage.say(
            f"{type(model).__name__} cannot read a prompt once for both responses here, so each "
            "response is read behind its own prompt, padded"
        )
    return RewardTrainer(
        model=model,
        loss=config.loss,
        labels=labels,
        center_rewards=config.center_rewards,
        pad_id=int(tokenizer.pad_token_id),
        aspects=_aspects(config),
        aspect_weight=config.aspect_weight,
        checkpointing=training.activation_checkpointing,
        early_stopping=stopping,
        held_out=held_out,
        args=TrainingArguments(
            **training.arguments(stage.scratch, seed), remove_unused_columns=False
        ),
        train_dataset=examples,
        processing_class=tokenizer,
    )


def _aspects(config: RewardConfig) -> Aspects | None:
    """Return what the outputs of the model are; None where there is one, the reward."""
    if not config.aspects:
        return None
    weights = tuple(aspect.weight for aspect in config.aspects.values())
    return Aspects(tuple(config.aspects), weights)


def _split(
    pairs: Sequence[EncodedPair], examples: Sequence[RewardExample], share: float
) -> tuple[Sequence[RewardExample], Sequence[RewardExample]]:
    """Return examples to train on, and those of a share of the prompts to look at on the way."""
    train, held_out = _drawn(pairs, "early stopping", share)
    if not train or not held_out:
        raise DataError(
            f"Of {len(pairs)} pairs, {len(train)} are left to train on and {len(held_out)} to "
            f"decide when to stop, and both need one at least. Change "
            f"early_stopping.held_out_share ({share:g}), or set early_stopping.patience: null."
        )
    return rows_at(examples, train), rows_at(examples, held_out)


def _evaluator(
    stage: Stage,
    hook: ScorerHook | None,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    aspects: Aspects | None,
) -> Evaluate | None:
    """Return what evaluates the reward model in training."""
    if hook is None:
        return None
    current = ScorerInTraining(model, tokenizer, max_length, aspects)
    folder = stage.folder / "evaluations"

    def evaluate(step: int) -> Mapping[str, float]:
        with gathered(model):
            return hook.judge_scorer(current, step, folder)

    return evaluate


class ScorerInTraining(TextScorer):
    """The reward model as it stands; not calibrated yet."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        aspects: Aspects | None = None,
    ) -> None:
        super().__init__(tokenizer, Calibration(max_length=max_length))
        self._model = model
        self._weights = (1.0,) if aspects is None else aspects.weights

    def outputs(self, ids: Tensor, attention_mask: Tensor) -> list[float]:
        """Return the model's own output for each row [B, T]; it trains on afterwards."""
        was_training = self._model.training
        self._model.eval()
        try:
            return classifier_outputs(self._model, ids, attention_mask, self._weights)
        finally:
            self._model.train(was_training)
