"""A trained reward model as a scorer of texts.

It has its own tokenizer and chat template, so the policy whose responses it scores may have
others. Prompt and response are tokenized together, exactly as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.data.records import Message
from plumbline.lm.chat import encode_response
from plumbline.lm.load import load_sequence_scorer
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.trunk import is_supported, last_states
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, read_json
from reward.mounted import MountedScorer, same_base

CALIBRATION = "calibration.json"


class RewardModelScorer:
    """Scores responses by a reward model, on a scale with mean 0 and deviation 1 on held-out pairs.

    ``batch_size`` changes speed and memory, not the scores (beyond rounding).
    """

    name = "reward"

    def __init__(self, model: Artifact | Path, batch_size: int = 64) -> None:
        silence_libraries()
        folder = model.path if isinstance(model, Artifact) else model
        self.folder = folder
        self.tokenizer = load_tokenizer(folder)
        self.batch_size = batch_size
        calibration = folder / CALIBRATION
        scale = read_json(calibration) if calibration.exists() else {}
        self.mean: float = scale.get("mean", 0.0)
        self.deviation: float = scale.get("deviation", 1.0)
        self.max_length: int | None = scale.get("max_length")

    @cached_property
    def model(self) -> Any:
        """The reward model, loaded when it is first asked for."""
        model = load_sequence_scorer(self.folder)
        model.eval()
        return model

    def mount(self, model: Any) -> RewardModelScorer | MountedScorer:
        """Return this scorer as one more adapter on a PEFT model, if it is of the same base.

        Nothing is loaded twice then. Otherwise the scorer itself comes back.
        """
        return MountedScorer(self, model) if same_base(self.folder, model) else self

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the calibrated reward of each response."""
        raw = self.raw_scores(prompts, responses)
        return [(score - self.mean) / self.deviation for score in raw]

    @torch.no_grad()
    def raw_scores(
        self,
        prompts: Sequence[Sequence[Message]],
        responses: Sequence[str],
        forward: Callable[[Tensor, Tensor], list[float]] | None = None,
    ) -> list[float]:
        """Return the model's own output for each response.

        ``forward`` takes ids and attention mask [n, T] in place of the model.
        """
        forward = forward or self._forward
        rows = [self._encode(p, r) for p, r in zip(prompts, responses, strict=True)]
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))  # less padding
        scores = [0.0] * len(rows)
        for start in range(0, len(order), self.batch_size):
            index = order[start : start + self.batch_size]
            part = self._padded([rows[i] for i in index])
            for row, score in zip(index, forward(*part), strict=True):
                scores[row] = score
        return scores

    def _encode(self, prompt: Sequence[Message], response: str) -> list[int]:
        prompt_ids, response_ids = encode_response(self.tokenizer, prompt, response)
        ids = [*prompt_ids, *response_ids]
        # A dialogue longer than any it was trained on keeps its end, where the response is.
        return ids if self.max_length is None else ids[-self.max_length :]

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        return ids, mask

    def _forward(self, ids: Tensor, mask: Tensor) -> list[float]:
        model, device = self.model, self.model.device
        ids, mask = ids.to(device), mask.to(device)
        if not is_supported(model):
            plain: list[float] = model(input_ids=ids, attention_mask=mask).logits[:, 0].tolist()
            return plain
        states = last_states(model, ids, mask)
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        with torch.autocast(device.type, enabled=False):  # few numbers, and all that is kept
            weight = next(whole.score.parameters())
            scores: list[float] = whole.score(states.to(weight.dtype))[:, 0].tolist()
        return scores
