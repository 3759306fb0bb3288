"""A reward model as one more adapter on a base that is in memory already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from plumbline.data.records import Message
from plumbline.lm.model_folder import ADAPTER, source_of
from plumbline.lm.policy import using_adapter
from plumbline.lm.trunk import last_states

_NAME = "reward"
_HEAD = "score"


class RawScorer(Protocol):
    """A reward model whose texts, batches and scale are used; its passes are made on the base."""

    name: str
    folder: Path
    mean: float
    deviation: float

    def raw_scores(
        self,
        prompts: Sequence[Sequence[Message]],
        responses: Sequence[str],
        forward: Callable[[Tensor, Tensor], list[float]] | None = None,
    ) -> list[float]:
        """Return the model's own output for each response, by ``forward`` in place of the model."""
        ...


def same_base(folder: Path, model: Any) -> bool:
    """Return whether a reward model is an adapter on the base that a PEFT model has."""
    source = source_of(folder)
    if source.adapter is None or ADAPTER not in getattr(model, "peft_config", {}):
        return False
    config = model.peft_config[ADAPTER]
    if config.revision != source.base.revision:
        return False
    here, there = config.base_model_name_or_path, source.base.name_or_path
    return here == there or Path(here).resolve() == Path(there).resolve()


class MountedScorer:
    """Scores like the `RewardModelScorer` that it is made of, on a policy's base.

    Where that base is held in other arithmetic than the reward model was trained in (4 bits), the
    scores differ as much as the arithmetic does.
    """

    def __init__(self, scorer: RawScorer, model: Any, adapter: str = _NAME) -> None:
        """Move in to a PEFT model under the name ``adapter``, which must be free there."""
        self.name = scorer.name
        self.adapter = adapter
        self._scorer, self._model = scorer, model
        self._head = _mount(scorer.folder, model, adapter).to(model.device)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the calibrated reward of each response."""
        raw = self._scorer.raw_scores(prompts, responses, self._forward)
        return [(score - self._scorer.mean) / self._scorer.deviation for score in raw]

    def linear(self) -> tuple[Tensor, Tensor]:
        """Return weight [1, H] and bias [1] of the calibrated reward of a last hidden state."""
        deviation = self._scorer.deviation
        return self._head / deviation, self._head.new_tensor([-self._scorer.mean / deviation])

    @torch.no_grad()
    def _forward(self, ids: Tensor, mask: Tensor) -> list[float]:
        was_training = self._model.training
        self._model.eval()
        with using_adapter(self._model, self.adapter):
            device = self._model.device
            states = last_states(self._model, ids.to(device), mask.to(device))
        self._model.train(was_training)
        with torch.autocast(device.type, enabled=False):  # few numbers, and all that is kept
            scores: list[float] = (states.to(self._head.dtype) @ self._head[0]).tolist()
        return scores


def _mount(folder: Path, model: Any, adapter: str) -> Tensor:
    """Add a reward model's adapter to a model, frozen; return the weight of its head, [1, H]."""
    from peft import LoraConfig
    from safetensors.torch import load_file

    config = LoraConfig.from_pretrained(str(folder))
    config.modules_to_save = None  # the head is held here
    config.task_type = None
    model.add_adapter(adapter, config)
    weights = load_file(folder / "adapter_model.safetensors")
    head = next(value for name, value in weights.items() if name.endswith(f"{_HEAD}.weight"))
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if f".{adapter}." not in name:
            continue
        parameter.data.copy_(weights[name.replace(f".{adapter}.", ".")])
        parameter.requires_grad = False
    model.set_adapter(ADAPTER)
    return torch.as_tensor(head, dtype=torch.float32)
