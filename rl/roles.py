"""Policy, reference and value: three roles, on one frozen base where they are adapters.

With an adapter, the base is held once: the policy is one adapter on it, the value model another
(with a head of its own), and the reference is the base alone or, where the policy went on from an
earlier adapter, a frozen copy of that. With full tuning each role has weights of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from plumbline.artefacts import Artefact
from plumbline.batches import Batch
from plumbline.models import (
    ADAPTER,
    TuningConfig,
    load_causal_lm,
    load_tokenizer,
    source_of,
    trainable_causal_lm,
)
from plumbline.policy import Policy, using_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REFERENCE = "reference"
_VALUE = "value"


class Roles:
    """The three roles, each able to look at a batch."""

    def __init__(self, policy_artefact: Artefact, tuning: TuningConfig) -> None:
        folder = policy_artefact.path
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(folder)
        self.model: Any = trainable_causal_lm(folder, tuning)
        _switch_dropout_off(self.model)
        if tuning.method == "full":
            self._value_model: Any = load_causal_lm(folder)
            reference: Any = load_causal_lm(folder)
            reference.requires_grad_(False)
            self.reference = Policy(reference, self.tokenizer)
        else:
            self._value_model = self.model
            _copy_adapter(self.model, _VALUE)
            # A new adapter starts as nothing on its base, so the base alone is the reference.
            goes_on = source_of(folder).adapter is not None
            if goes_on:
                _copy_adapter(self.model, _REFERENCE)
            self.model.set_adapter(ADAPTER)
            self.reference = Policy(self.model, self.tokenizer, _REFERENCE if goes_on else None)
            for parameter in self._parameters(self.model, _VALUE).values():
                parameter.requires_grad = True
        self.policy = Policy(self.model, self.tokenizer, ADAPTER)
        hidden = self.model.config.get_text_config().hidden_size
        self.head = nn.Linear(hidden, 1, device=self.model.device)
        # From nought: the first values are all 0, and so advantages start as plain returns.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def values(self, batch: Batch) -> Tensor:
        """Return the value of the state before each response token, [B, R]."""
        batch = batch.to(self.model.device)
        width = batch.response_mask.shape[1]
        with using_adapter(self._value_model, _VALUE):
            hidden = _backbone(self._value_model)(
                input_ids=batch.ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
            ).last_hidden_state
        # The state before the first response token is that after the last prompt token.
        states = hidden[:, -width - 1 : -1]
        values: Tensor = self.head(states.to(self.head.weight.dtype)).squeeze(-1)
        return values.float().masked_fill(~batch.response_mask, 0.0)

    @property
    def policy_parameters(self) -> dict[str, nn.Parameter]:
        """The policy's trainable weights by name."""
        return self._parameters(self.model, ADAPTER)

    @property
    def value_parameters(self) -> dict[str, nn.Parameter]:
        """The value model's trainable weights by name, its head among them."""
        head = {f"value_head.{name}": p for name, p in self.head.named_parameters()}
        return self._parameters(self._value_model, _VALUE) | head

    def _parameters(self, model: Any, adapter: str) -> dict[str, nn.Parameter]:
        if not hasattr(model, "peft_config"):
            return dict(model.named_parameters())
        return {name: p for name, p in model.named_parameters() if f".{adapter}." in name}


def _copy_adapter(model: Any, name: str) -> None:
    """Add an adapter that starts as an exact copy of the policy's."""
    model.add_adapter(name, model.peft_config[ADAPTER])
    parameters = dict(model.named_parameters())
    for source, parameter in parameters.items():
        if f".{ADAPTER}." in source:
            copy = parameters[source.replace(f".{ADAPTER}.", f".{name}.")]
            copy.data.copy_(parameter.data)


def _backbone(model: Any) -> Any:
    """Return the decoder without its language-model head; adapters in it stay in place."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return whole.base_model


def _switch_dropout_off(model: Any) -> None:
    """Dropout would make the ratio of new to old probabilities random."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
