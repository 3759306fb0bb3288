"""A trained reward model as a scorer of texts."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from plumbline.lm.load import load_sequence_scorer
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
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
        return classifier_outputs(self.model, ids, attention_mask)

    def mount(self, model: Any, adapter: str = "reward") -> TextScorer:
        """Return this scorer as one more adapter on a PEFT model, if it is of the same base.

        Nothing is loaded twice then. Otherwise the scorer itself comes back.
        """
        if not same_base(self.folder, model):
            return self
        return MountedScorer(
            self.folder, self.tokenizer, self.calibration, self.batch_size, model, adapter
        )
