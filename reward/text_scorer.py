"""From texts to scores: what every form of a reward model shares.

A reward model has its own tokenizer and chat template, so the policy whose responses it scores may
have others. Its tokens are made as in training, in `plumbline.lm.chat`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from plumbline.data.records import Message
from plumbline.errors import ModelError
from plumbline.lm.batches import pad_right_ids
from plumbline.lm.chat import (
    ConversationRefusedError,
    EncodedResponses,
    encode_responses,
    scoring_problem,
)
from plumbline.lm.gpu.checks import has_packed_pass
from plumbline.lm.trunk import is_supported, last_states
from plumbline.training.row_file import in_parts
from reward.calibration import Calibration

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
#: The most tokens of one pass, with padding: 64 texts of 512 tokens.
BATCH_TOKENS = 1 << 15


class TextScorer(ABC):
    """Scores responses by a model's outputs, on a calibrated scale.

    ``batch_size``, the most responses of one pass, and `BATCH_TOKENS`, the most tokens of one with
    their padding, change speed and memory, not the scores (beyond rounding).
    """

    name = "reward"

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, calibration: Calibration, batch_size: int = 64
    ) -> None:
        self.tokenizer = tokenizer
        self.calibration = calibration
        self.batch_size = batch_size
        self.shortened = 0
        """How many texts were longer than any in training so far, and kept their end alone."""

    @abstractmethod
    def outputs(self, ids: Tensor, attention_mask: Tensor) -> list[float]:
        """Return the model's own output for each row [B, T], padded on the right."""

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the calibrated reward of each response."""
        return [self.calibration.apply(raw) for raw in self.raw_scores(prompts, responses)]

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        return scoring_problem(self.tokenizer, prompt)

    def raw_scores(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[float]:
        """Return the model's own output for each response."""
        return self.in_batches(prompts, responses, self.outputs)

    def in_batches(
        self,
        prompts: Sequence[Sequence[Message]],
        responses: Sequence[str],
        read: Callable[[Tensor, Tensor], Sequence[T]],
        copies: int = 1,
    ) -> list[T]:
        """Return what ``read`` returns for each response, given batches of ids and masks [B, T].

        ``copies`` is how often it holds a batch at once.
        """
        rows: list[array[int]] = []  # 4 bytes a token, for there may be many
        for part in in_parts(zip(prompts, responses, strict=True)):
            texts = [(prompt, [response]) for prompt, response in part]
            for ids in encode_responses(self.tokenizer, texts):
                if isinstance(ids, ConversationRefusedError):
                    raise ModelError(
                        f"The reward model cannot score prompt {len(rows) + 1} of {len(prompts)}: "
                        f"{ids}. Leave such prompts out, or take a reward model whose template "
                        "takes them."
                    )
                rows.append(array("i", self._end_of_text(ids)))
        return self.read_rows(rows, read, copies)

    @torch.no_grad()
    def read_rows(
        self,
        rows: Sequence[Sequence[int]],
        read: Callable[[Tensor, Tensor], Sequence[T]],
        copies: int = 1,
    ) -> list[T]:
        """Return the same for texts as ids."""
        outputs: dict[int, T] = {}
        lengths = [len(row) for row in rows]
        for index in batches_by_tokens(lengths, self.batch_size, BATCH_TOKENS // copies):
            batch = pad_right_ids([rows[row] for row in index], int(self.tokenizer.pad_token_id))
            outputs |= zip(index, read(*batch), strict=True)
        return [outputs[row] for row in range(len(rows))]

    def _end_of_text(self, encoded: EncodedResponses) -> list[int]:
        """Return a prompt with its response, of a longer text its end; count these."""
        ids = [*encoded.prompt_ids, *encoded.responses[0]]
        kept = self.end_of(ids)
        self.shortened += len(kept) < len(ids)
        return kept

    def end_of(self, ids: list[int]) -> list[int]:
        """Return the end of a text, as long as any in training: there the response is."""
        longest = self.calibration.max_length
        return ids if longest is None else ids[-longest:]


def batches_by_tokens(
    lengths: Sequence[int], most_rows: int, most_tokens: int = BATCH_TOKENS
) -> Iterator[list[int]]:
    """Yield the numbers of rows with these lengths in batches, rows of similar length together.

    No batch has more than ``most_rows`` rows, nor more than ``most_tokens`` tokens with its
    padding, but for a single row that is longer.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) == most_rows or (len(batch) + 1) * lengths[row] > most_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def classifier_outputs(
    model: Any, ids: Tensor, attention_mask: Tensor, weights: Sequence[float] = (1.0,)
) -> list[float]:
    """Return the weighted sum of a sequence classifier's outputs for each row [B, T]."""
    return _summed(classifier_logits(model, ids, attention_mask), weights)


def classifier_logits(model: Any, ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return a sequence classifier's outputs [B, K] for rows [B, T]."""
    ids, attention_mask = ids.to(model.device), attention_mask.to(model.device)
    if not is_supported(model) and not has_packed_pass(model):
        logits: Tensor = model(input_ids=ids, attention_mask=attention_mask).logits
        return logits
    states = last_states(model, ids, attention_mask)
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.autocast(model.device.type, enabled=False):  # few numbers, and all that is kept
        outputs: Tensor = whole.score(states.to(next(whole.score.parameters()).dtype))
    return outputs


def _summed(outputs: Tensor, weights: Sequence[float]) -> list[float]:
    """Return the weighted sum of outputs [B, K], one number for each row."""
    if len(weights) == 1 and weights[0] == 1:
        only: list[float] = outputs[:, 0].tolist()
        return only
    sums: list[float] = (outputs @ outputs.new_tensor(weights)).tolist()
    return sums
