"""Training on pairs: a prompt is read once for both of its responses, and nothing is padded.

The loop is that of `transformers.Trainer`, with exact resume. A pass computes log-probabilities at
response positions only (`plumbline.lm.branches`); the losses are those of `preference.losses`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from plumbline.errors import ModelError
from plumbline.lm.branches import Branches, branch_logprobs
from plumbline.lm.logprobs import TokenLogprobs
from plumbline.runs.processes import of_all_processes
from plumbline.training.exact_resume import ExactResume
from plumbline.training.figures import Means, pooled, read_numbers
from plumbline.training.row_file import LazyRows
from preference.batches import PairBatch
from preference.config import DPOConfig, KTOConfig, ReferenceConfig
from preference.logprobs import LossSettings, PairLogprobs, pairs_of_sums, response_sums
from preference.losses import mixed_losses
from preference.reference import (
    PolicyAndReference,
    cached_sums,
    moves_at,
    restore,
    state_of,
)
from preference.signs_of_trouble import pair_figures


class BranchTrainer(ExactResume):
    """What trainings on pairs and on labels share: the policy with its reference, and figures."""

    calls_model = False
    train_dataset: Any

    def __init__(
        self, *, roles: PolicyAndReference, config: DPOConfig | KTOConfig, **arguments: Any
    ) -> None:
        super().__init__(model=roles.model, **arguments)
        if getattr(roles.model.config.get_text_config(), "output_router_logits", False):
            raise ModelError(
                "The model's config has output_router_logits on, which asks for a loss that "
                "balances its experts, and there is none here. Switch it off in the config."
            )
        self.roles, self.config = roles, config
        self.model_accepts_loss_kwargs = False  # our loss is a mean over the batch
        self.on_figures: Callable[[int, Mapping[str, float]], None] | None = None
        """Called with each line of training figures."""
        self._total_train_tokens = 0
        self._figures: dict[str, list[float]] = defaultdict(list)
        if config.has_reference and config.reference.kind == "moving":
            roles.start_moving()
            self.add_callback(_MovesReference(roles, config.reference))

    def examples_read(self) -> Sequence[int]:
        """Return the numbers of the examples that the training will read, in their own order.

        Those of the first steps, where the training ends within its first pass over the data.
        """
        loader = self.get_train_dataloader()
        batches = self.planned_steps() * self.args.gradient_accumulation_steps
        if batches >= len(loader):
            return range(len(self.train_dataset))
        # The sampler has a seed of its own, so that this draws nothing from the training's streams.
        own = list(itertools.chain(*itertools.islice(loader.batch_sampler, batches)))
        return sorted(set(itertools.chain(*of_all_processes(own))))

    def use_cached_reference(self, folder: Path, *, ld_alpha: float | None = None) -> None:
        """Give the examples the log-probabilities of their responses under the start.

        Those of the examples that the training will read, computed once.
        """
        training, examples, read = self.config.training, self.train_dataset, self.examples_read()
        with self.accelerator.autocast():
            sums = cached_sums(
                Branches(
                    LazyRows(len(read), lambda place: examples[read[place]].prompt_ids),
                    LazyRows(len(read), lambda place: examples[read[place]].responses),
                ),
                self.roles,
                folder,
                ld_alpha=ld_alpha,
                batch_size=4 * training.batch_size,
                precision="bfloat16" if training.computes_in_bfloat16 else "model",
            )
        places = torch.full((len(examples),), -1)
        places[torch.tensor(read)] = torch.arange(len(read))

        def with_reference(number: int) -> Any:
            place = int(places[number])
            known = None if place < 0 else tuple(sums[place].tolist())
            return examples[number]._replace(reference=known)

        self.train_dataset = LazyRows(len(examples), with_reference)

    def _note(self, tokens: int, *groups: tuple[Mapping[str, Tensor], Tensor | int]) -> None:
        """Note the tokens of a batch, and means by name with the number of rows they are over."""
        numbers = read_numbers(
            [tensor for means, rows in groups for tensor in (*means.values(), rows)]
        )
        rest = iter(numbers)
        own: list[Means] = []
        for means, _ in groups:
            own.append(({name: next(rest) for name in means}, next(rest)))
        self._total_train_tokens += sum(of_all_processes(tokens))
        for name, number in pooled(own).items():
            self._figures[name].append(number)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the figures since the last line."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self._figures.items()}
            logs["num_tokens"] = float(self._total_train_tokens)
            self._figures.clear()
            if self.on_figures is not None:
                self.on_figures(self.state.global_step, logs)
        super().log(logs, start_time)

    def more_state(self) -> dict[str, Any]:
        """Return the reference, where it moves."""
        return state_of(self.roles)

    def load_more_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `more_state` returned."""
        restore(self.roles, state)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs  # ids are packed on the CPU, and moved then

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: transformers' count knows no shared prompts, and nothing reads it."""
        return 0


class PreferenceTrainer(BranchTrainer):
    """Trains the policy of `PolicyAndReference` on pairs, by the losses of a config."""

    config: DPOConfig

    def __init__(self, *, roles: PolicyAndReference, config: DPOConfig, **arguments: Any) -> None:
        super().__init__(roles=roles, config=config, **arguments)
        self.settings = config.loss_settings

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean of the losses over the pairs of a batch."""
        pairs: PairBatch = inputs["pairs"]
        with self.accelerator.autocast():
            tokens = self._token_logprobs(pairs)
            plain = self._pair_logprobs(pairs, tokens.logprobs, None)
            ld_alpha = self.config.ld_alpha
            seen = (
                plain if ld_alpha is None else self._pair_logprobs(pairs, tokens.logprobs, ld_alpha)
            )
        settings = self._settings_of(pairs, tokens.logprobs)
        losses = mixed_losses(self.config.losses, plain, seen, settings)
        loss = (losses * pairs.weights.to(losses)).mean()
        count = int(pairs.tokens.sum())
        self._note(
            pairs.tokens_seen,
            ({"entropy": tokens.entropy.sum() / count}, count),
            (pair_figures(seen, self.settings.beta), len(losses)),
        )
        return (loss, seen) if return_outputs else loss

    def _token_logprobs(self, pairs: PairBatch) -> TokenLogprobs:
        """Return those of all responses under the policy, [2 B, R]."""
        policy = self.roles.policy
        return branch_logprobs(
            policy.model,
            pairs.branches,
            pad_id=policy.pad_id,
            checkpointing=self.config.training.activation_checkpointing,
        )

    def _pair_logprobs(
        self, pairs: PairBatch, token_logprobs: Tensor, ld_alpha: float | None
    ) -> PairLogprobs:
        """Return what losses see; with the reference's numbers, where there is one."""
        by_pair = token_logprobs.view(len(pairs.tokens), 2, -1)
        tokens = pairs.tokens.to(by_pair.device)
        sums = response_sums(by_pair, tokens, ld_alpha)
        if not self.config.has_reference:
            reference = None
        elif pairs.reference is not None:
            reference = pairs.reference.to(sums)
        else:
            reference = self.roles.sums(pairs.branches, pairs.tokens, ld_alpha)
        return pairs_of_sums(sums, reference, tokens)

    def _settings_of(self, pairs: PairBatch, like: Tensor) -> LossSettings:
        """Return the settings, with what the rows of the pairs say."""
        config, settings = self.config, self.settings
        if config.soft_labels is not None:
            settings = settings._replace(label_smoothing=pairs.label_smoothing.to(like))
        if config.margins is not None:
            margins = config.target_margin * pairs.margins.to(like)
            settings = settings._replace(target_margin=margins)
        return settings


class _MovesReference(TrainerCallback):  # type: ignore[misc]
    """Lets the reference follow the policy."""

    def __init__(self, roles: PolicyAndReference, config: ReferenceConfig) -> None:
        self._roles, self._config = roles, config

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move it where it is time to."""
        if moves_at(self._config, state.global_step):
            self._roles.update(self._config.mixing)
