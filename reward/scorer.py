"""A trained reward model as a scorer of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.data.records import Message
from plumbline.lm.chat import encode_prompt
from plumbline.lm.load import head_outputs, load_classifier, load_sequence_scorer
from plumbline.lm.trunk import last_states
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from reward.aspects import Aspects
from reward.calibration import Calibration
from reward.classifier import label_weights, load_scorer_tokenizer, reads_pairs, score_pairs
from reward.gate import Gate
from reward.mounted import MountedScorer, same_base
from reward.text_scorer import TextScorer, classifier_logits, classifier_outputs


class RewardModelScorer(TextScorer):
    """Scores responses by a reward model in a folder: one of ours, or any sequence classifier.

    ``label``: of a classifier with two labels, the one whose log-odds are the reward
    (`reward.classifier`).
    """

    def __init__(
        self, model: Artifact | Path, batch_size: int = 64, label: str | None = None
    ) -> None:
        silence_libraries()
        self.folder = model.path if isinstance(model, Artifact) else model
        self._label_weights = label_weights(self.folder, label)
        super().__init__(
            load_scorer_tokenizer(self.folder), Calibration.read(self.folder), batch_size
        )
        self._reads_pairs = reads_pairs(self.tokenizer)

    @cached_property
    def model(self) -> Any:
        """The reward model, loaded when it is first asked for."""
        if self._reads_pairs:
            return load_classifier(self.folder)[0]
        model = load_sequence_scorer(self.folder)
        model.eval()
        return model

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        return None if self._reads_pairs else super().problem_with(prompt)

    def raw_scores(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[float]:
        """Return the model's own output for each response."""
        if self.gate is not None:
            return self._gated(self.gate, prompts, responses)
        if not self._reads_pairs:
            return super().raw_scores(prompts, responses)
        return score_pairs(
            self.model, self.tokenizer, prompts, responses, self._weights, self.batch_size
        )

    def outputs(self, ids: Tensor, attention_mask: Tensor) -> list[float]:
        """Return the model's own output for each row [B, T], padded on the right."""
        return classifier_outputs(self.model, ids, attention_mask, self._weights)

    @cached_property
    def aspects(self) -> Aspects | None:
        """What the model's outputs are, where it has several."""
        if self._label_weights is not None:
            return None
        return Aspects.read(self.folder, head_outputs(self.folder))

    @cached_property
    def _weights(self) -> Sequence[float]:
        """Weight of each output in the reward."""
        if self._label_weights is not None:
            return self._label_weights
        return (1.0,) if self.aspects is None else self.aspects.weights

    @cached_property
    def gate(self) -> Gate | None:
        """What weighs the aspects by the prompt, where the model has a gate."""
        return None if self.aspects is None else Gate.read(self.folder)

    def _gated(
        self, gate: Gate, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[float]:
        outputs = torch.stack(self.in_batches(prompts, responses, self._logits))
        weights = self.aspect_weights(gate, prompts)
        sums: list[float] = (outputs * weights).sum(1).tolist()
        return sums

    def aspect_weights(self, gate: Gate, prompts: Sequence[Sequence[Message]]) -> Tensor:
        """Return how much each aspect counts for each prompt, [N, K], by a gate."""
        ids = [tuple(self.end_of(encode_prompt(self.tokenizer, prompt))) for prompt in prompts]
        places = {text: place for place, text in enumerate(dict.fromkeys(ids))}
        weights: Tensor = gate(self.states_of(list(places)))
        return weights[torch.tensor([places[text] for text in ids])]

    def states_of(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the last hidden state of each text (as ids), [N, H]."""
        model = self.model

        def read(ids: Tensor, mask: Tensor) -> list[Tensor]:
            states = last_states(model, ids.to(model.device), mask.to(model.device))
            return list(states.float().cpu())

        return torch.stack(self.read_rows(texts, read))

    def outputs_of(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the model's own outputs for each text (as ids), [N, K]."""
        return torch.stack(self.read_rows(texts, self._logits))

    def _logits(self, ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        return list(classifier_logits(self.model, ids, attention_mask).float().cpu())

    def aspect_scores(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> dict[str, list[float]]:
        """Return the model's own output for each response, by aspect; empty where it has none."""
        if self.aspects is None:
            return {}
        columns = torch.stack(self.in_batches(prompts, responses, self._logits)).T.tolist()
        return dict(zip(self.aspects.names, columns, strict=True))

    def mount(self, model: Any, adapter: str = "reward") -> TextScorer:
        """Return this scorer as one more adapter on a PEFT model, if it is of the same base.

        Nothing is loaded twice then. Otherwise the scorer itself comes back, as where a gate reads
        the prompt for itself.
        """
        if self.gate is not None or not same_base(self.folder, model):
            return self
        return MountedScorer(
            self.folder, self.tokenizer, self.calibration, self.batch_size, model, adapter
        )
