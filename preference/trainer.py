"""TRL's DPOTrainer on our token ids and with our losses; the one place where the two meet."""

from __future__ import annotations

from typing import Any

import trl
from datasets import Dataset
from torch import Tensor

from plumbline.training.exact_resume import ExactResume
from preference.losses import LossFunction, PairLogprobs


class PreferenceTrainer(ExactResume, trl.DPOTrainer):  # type: ignore[misc]
    """Runs the model and keeps the metrics as TRL does; the ids and the loss are ours.

    Rows have ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``. TRL computes the reference's
    log-probabilities once, before training, by the same pass as the policy's.
    """

    def __init__(self, *, loss: LossFunction, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._loss = loss

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset  # tokens are made in plumbline.lm.chat, for every trainer and scorer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean of our losses over the pairs of a batch."""
        passes: list[Any] = []

        def run_once(**batch: Any) -> Any:
            passes.append(model(**batch))
            return passes[-1]

        # TRL's own loss is left alone: its call runs the model and records the metrics.
        super().compute_loss(run_once, inputs)
        logprobs = pair_logprobs(passes[0].log_probs, inputs)
        loss = self._loss(logprobs, self.beta, self.label_smoothing).mean()
        if self.aux_loss_enabled:  # a mixture of experts keeps its load balanced
            loss = loss + self.router_aux_loss_coef * passes[0].aux_loss
        return (loss, passes[0]) if return_outputs else loss


def pair_logprobs(token_logprobs: Tensor, inputs: dict[str, Any]) -> PairLogprobs:
    """Return the log-probabilities of a batch of pairs.

    ``token_logprobs`` is [2 B, T], 0 outside the responses; the chosen ones are in its first half,
    as in TRL's batches.
    """
    chosen, rejected = token_logprobs.sum(dim=1).chunk(2)
    chosen_tokens, rejected_tokens = inputs["completion_mask"].sum(dim=1).chunk(2)
    return PairLogprobs(
        chosen,
        rejected,
        inputs["ref_chosen_logps"],
        inputs["ref_rejected_logps"],
        chosen_tokens,
        rejected_tokens,
    )
