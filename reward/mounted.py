"""A reward model as one more adapter on a base that is in memory already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plumbline.data.records import Message
from plumbline.hooks import Scorer
from plumbline.lm.model_folder import ADAPTER, ADAPTER_CONFIG, source_of
from plumbline.lm.trunk import last_states_by_roles
from plumbline.lm.tuning_methods import kind_of_adapter
from plumbline.runs.artifacts import read_json
from reward.aspects import Aspects
from reward.calibration import Calibration
from reward.text_scorer import TextScorer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HEAD = "score"
#: Kinds of adapters that move in: they add two low-rank matrices, and nothing else.
_MOUNTED = ("lora", "rslora")


def same_base(folder: Path, model: Any) -> bool:
    """Return whether a reward model is an adapter on the base that a PEFT model has."""
    source = source_of(folder)
    if source.adapter is None or ADAPTER not in getattr(model, "peft_config", {}):
        return False
    if kind_of_adapter(read_json(source.adapter / ADAPTER_CONFIG)) not in _MOUNTED:
        return False
    config, base = model.peft_config[ADAPTER], source.reference
    return bool(
        config.revision == base.revision and config.base_model_name_or_path == base.name_or_path
    )


class MountedScorer(TextScorer):
    """Scores as the reward model does by itself, on a policy's base.

    Where that base is held in other arithmetic than the reward model was trained in (4 bits), the
    scores differ as much as the arithmetic does.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        calibration: Calibration,
        batch_size: int,
        model: Any,
        adapter: str,
    ) -> None:
        """Move the reward model of a folder in to a PEFT model; ``adapter`` must be free there."""
        super().__init__(tokenizer, calibration, batch_size)
        self.adapter = adapter
        self._model = model
        self._head = _mount(folder, model, adapter).to(model.device)

    def linear(self) -> tuple[Tensor, Tensor]:
        """Return weight [1, H] and bias [1] of the calibrated reward of a last hidden state."""
        std = self.calibration.std
        return self._head / std, self._head.new_tensor([-self.calibration.mean / std])

    def outputs(self, ids: Tensor, attention_mask: Tensor) -> list[float]:
        """Return the model's own output for each row [B, T], padded on the right."""
        return [only for (only,) in _outputs([self], ids, attention_mask)]


def read_together(members: Sequence[Scorer]) -> bool:
    """Return whether scorers are adapters on one base that read the same tokens."""
    first, *others = members
    return isinstance(first, MountedScorer) and all(
        isinstance(other, MountedScorer)
        and other._model is first._model
        and other.calibration.max_length == first.calibration.max_length
        and _reading(other.tokenizer) == _reading(first.tokenizer)
        for other in others
    )


def scores_together(
    members: Sequence[MountedScorer],
    prompts: Sequence[Sequence[Message]],
    responses: Sequence[str],
) -> list[list[float]]:
    """Return the calibrated rewards of members that `read_together`, a list for each member.

    Texts are encoded once, and a batch is read by all adapters at once where the base allows it.
    """
    first = members[0]
    outputs = first.in_batches(
        prompts, responses, lambda *batch: _outputs(members, *batch), copies=len(members)
    )
    by_member = zip(*outputs, strict=True) if outputs else [()] * len(members)
    return [
        [member.calibration.apply(output) for output in of_member]
        for member, of_member in zip(members, by_member, strict=True)
    ]


def _outputs(
    members: Sequence[MountedScorer], ids: Tensor, attention_mask: Tensor
) -> list[list[float]]:
    """Return the output of each member for each row [B, T], [B][members]."""
    model = members[0]._model
    device, was_training = model.device, model.training
    model.eval()
    by_member = last_states_by_roles(
        model, ids.to(device), attention_mask.to(device), [member.adapter for member in members]
    )
    model.train(was_training)
    with torch.autocast(device.type, enabled=False):  # few numbers, and all that is kept
        columns = [
            states.to(member._head.dtype) @ member._head[0].to(device)  # shares may have moved
            for member, states in zip(members, by_member, strict=True)
        ]
    rows: list[list[float]] = torch.stack(columns, dim=1).tolist()
    return rows


def _reading(tokenizer: PreTrainedTokenizerBase) -> tuple[object, ...]:
    """Return what decides the ids of a conversation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = tokenizer.get_vocab() if backend is None else backend.to_str()
    return words, tokenizer.chat_template, tokenizer.pad_token_id


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
    head, aspects = torch.as_tensor(head, dtype=torch.float32), Aspects.read(folder, len(head))
    # A weighted sum of outputs is one output, whose weight is that sum.
    return head if aspects is None else head.new_tensor(aspects.weights).unsqueeze(0) @ head
