"""A trained reward model as a scorer of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from plumbline.data.records import Message
from plumbline.lm.load import head_outputs, load_sequence_scorer
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from reward.aspects import Aspects
from reward.calibration import Calibration
from reward.mounted import MountedScorer, same_base
from reward.text_scorer import TextScorer, classifier_outputs


class RewardModelScorer(TextScorer):
    """Scores responses by a reward model in a folder."""

    def __init__(self, model: Artifact | Path, batch_size: int = 64) -> None:
        silence_libraries()
        self.folder = model.path if isinstance(model, Artifact) else model
        super().__init__(load_tokenizer(self.folder), Calibration.read(self.folder), batch_size)

    @cached_property
    def model(self) -> Any:
        """The reward model, loaded when it is first asked for."""
        model = load_sequence_scorer(self.folder)
        model.eval()
        return model

    def outputs(self, ids: Tensor, attention_mask: Tensor) -> list[float]:
        """Return the model's own output for each row [B, T], padded on the right."""
        return classifier_outputs(self.model, ids, attention_mask, self._weights)

    @cached_property
    def aspects(self) -> Aspects | None:
        """What the model's outputs are, where it has several."""
        return Aspects.read(self.folder, head_outputs(self.folder))

    @cached_property
    def _weights(self) -> Sequence[float]:
        """Weight of each output in the reward."""
        return (1.0,) if self.aspects is None else self.aspects.weights

    def aspect_scores(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> dict[str, list[float]]:
        """Return the model's own output for each response, by aspect; empty where it has none."""
        reward, scores = self._weights, {}
        try:
            for number, name in enumerate(self.aspects.names if self.aspects else ()):
                self._weights = [float(place == number) for place in range(len(reward))]
                scores[name] = self.raw_scores(prompts, responses)
        finally:
            self._weights = reward
        return scores

    def mount(self, model: Any, adapter: str = "reward") -> TextScorer:
        """Return this scorer as one more adapter on a PEFT model, if it is of the same base.

        Nothing is loaded twice then. Otherwise the scorer itself comes back.
        """
        if not same_base(self.folder, model):
            return self
        return MountedScorer(
            self.folder, self.tokenizer, self.calibration, self.batch_size, model, adapter
        )
