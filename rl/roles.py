"""Policy, reference, value and reward: four roles, on one frozen base where they are adapters.

With an adapter, the base is held once: the policy is one adapter on it, the value model another
(with a head of its own), and the reference is the base alone or, where the policy started as
an adapter or the reference is to follow it, one more. A reward model that is an adapter
on the same base moves in, too. With full tuning each role has weights of its own, but for a value
head on the policy's trunk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plumbline.errors import ConfigError, ModelError
from plumbline.hooks import Mountable, Scorer
from plumbline.lm.adapters import copy_adapter, role_parameters, under_role, using_adapter
from plumbline.lm.batches import Batch
from plumbline.lm.given_reference import load_reference
from plumbline.lm.gpu.checks import has_packed_pass
from plumbline.lm.load import trainable_causal_lm
from plumbline.lm.logprobs import (
    TokenLogprobs,
    logprobs_and_values,
    logprobs_and_values_by_roles,
    response_values,
)
from plumbline.lm.model_folder import ADAPTER, source_of
from plumbline.lm.policy import Policy
from plumbline.lm.precision import computes_in_bfloat16
from plumbline.lm.sharding import connect, connect_head, problem_with_shares, shares_weights, split
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig, switch_dropout_off
from plumbline.runs.artifacts import Artifact
from plumbline.training.sharding import (
    check_optimizer,
    check_tuning,
    one_by_one,
    refuse_shares,
)
from rl.config import PPOConfig, ValueConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REFERENCE, _INITIAL = "reference", "initial"
_VALUE = "value"


class Roles:
    """The roles, each able to read a batch.

    ``value=None``: there is no value model. ``moving_reference``: the reference is to follow the
    policy, so it must have weights of its own. ``given_reference``: another model than the policy's
    start is the reference.
    """

    def __init__(
        self,
        policy_artifact: Artifact,
        tuning: TuningConfig,
        value: ValueConfig | None = ValueConfig(),  # noqa: B008 - it is frozen
        *,
        moving_reference: bool = False,
        given_reference: Artifact | None = None,
    ) -> None:
        folder = policy_artifact.path
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(folder)
        self.model: Any = trainable_causal_lm(folder, tuning)
        self.moving_reference = moving_reference
        if moving_reference and given_reference is not None:
            raise ConfigError(
                "kl.reference_decay lets the reference follow the policy, so it can be no other "
                "model. Leave it out, or the reference."
            )
        self.has_values = value is not None
        self.shares_trunk = value is not None and value.trunk == "shared"
        self.policy = Policy(self.model, self.tokenizer, ADAPTER)
        other: Policy | None = None
        if given_reference is not None:
            other = load_reference(given_reference.path, self.policy, folder, tuning)
        if tuning.has_adapter:
            self._add_adapters(folder, other)
        else:
            self._add_models(folder, tuning, other)
        switch_dropout_off(self.model)
        for model in (self._value_model, self.reference.model, self.initial_reference.model):
            switch_dropout_off(model)
        hidden = self.model.config.get_text_config().hidden_size
        self.value_head = nn.Linear(hidden, 1, device=self.model.device)
        if value is not None and value.head == "normal":
            nn.init.normal_(self.value_head.weight, std=1 / (hidden + 1) ** 0.5)
        else:
            # The first values are all 0, and so advantages start as plain returns.
            nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def _add_models(self, folder: Path, tuning: TuningConfig, other: Policy | None) -> None:
        """Give each role weights of its own. An adapter that the policy had is merged in all."""
        own_trunk = self.has_values and not self.shares_trunk
        self._value_model: Any = trainable_causal_lm(folder, tuning) if own_trunk else self.model
        frozen = (
            [other]
            if other is not None
            else [
                Policy(trainable_causal_lm(folder, tuning).requires_grad_(False), self.tokenizer)
                for _ in range(2 if self.moving_reference else 1)
            ]
        )
        self.reference, self.initial_reference = frozen[0], frozen[-1]

    def _add_adapters(self, folder: Path, other: Policy | None) -> None:
        """Give each role an adapter on the policy's base, where the base alone does not serve."""
        self._value_model = self.model
        # A new adapter starts as nothing on its base, so the base alone is the reference.
        had_adapter = source_of(folder).adapter is not None and other is None
        reference = _REFERENCE if had_adapter or self.moving_reference else None
        initial = (_INITIAL if self.moving_reference else _REFERENCE) if had_adapter else None
        for role, needed in (
            (_VALUE, self.has_values and not self.shares_trunk),
            (_REFERENCE, reference is not None),
            (_INITIAL, initial == _INITIAL),
        ):
            if needed:
                copy_adapter(self.model, ADAPTER, role)
        self.model.set_adapter(ADAPTER)
        self.reference = other or Policy(self.model, self.tokenizer, reference)
        self.initial_reference = other or Policy(self.model, self.tokenizer, initial)
        for parameter in role_parameters(self.model, _VALUE).values():
            parameter.requires_grad = True

    def checkpoint_activations(self) -> None:
        """Compute activations a second time in backward passes; raise `ModelError` elsewhere."""
        if self.model.device.type != "cuda":
            raise ModelError(
                "activation_checkpointing is on, which PPO has on a GPU alone, and there is none. "
                "Leave it out; a smaller micro_batch_size takes less memory, too."
            )
        self.policy.checkpointing = True

    def mount(self, scorer: Scorer) -> Scorer:
        """Return the scorer, moved in to the roles' own base where it is an adapter on that."""
        if isinstance(scorer, Mountable) and hasattr(self.model, "peft_config"):
            with using_adapter(self.model, ADAPTER):  # PEFT would leave the value model frozen
                return scorer.mount(self.model)
        return scorer

    def start_values_from(self, scorer: Scorer) -> None:
        """Let the value model start as the reward model that has moved in.

        Raises `ModelError` where the scorer has not moved in, or has adapters of another shape.
        """
        adapter = getattr(scorer, "adapter", None)
        if adapter is None:
            raise ModelError(
                "value.start is reward, but the reward model is not an adapter on the policy's "
                "base. Leave value.start at policy, or train the reward model as an adapter."
            )
        values = role_parameters(self.model, _VALUE)
        rewards = role_parameters(self.model, adapter)
        renamed = {under_role(name, adapter, _VALUE): p for name, p in rewards.items()}
        configs = self.model.peft_config
        if configs[adapter].lora_alpha != configs[_VALUE].lora_alpha or {
            name: p.shape for name, p in renamed.items()
        } != {name: p.shape for name, p in values.items()}:
            raise ModelError(
                "value.start is reward, but the reward model's adapter has another form than the "
                "policy's. Give both the same rank, alpha and target_modules."
            )
        for name, parameter in values.items():
            parameter.data.copy_(renamed[name].data)
        weight, bias = scorer.linear()  # type: ignore[attr-defined]
        self.value_head.weight.data.copy_(weight)
        self.value_head.bias.data.copy_(bias)

    @property
    def reads_together(self) -> bool:
        """Whether policy and value model read the same rows in one pass, each by its own tokens.

        On a GPU, where both are adapters on one base.
        """
        own_adapters = self.has_values and not self.shares_trunk and self._value_model is self.model
        return own_adapters and has_packed_pass(self.model)

    def values(self, batch: Batch) -> Tensor:
        """Return the value of the state before each response token, [B, R]."""
        return response_values(
            self._value_model,
            batch,
            self.value_of,
            role=ADAPTER if self.shares_trunk else _VALUE,
            checkpointing=self.policy.checkpointing,
        )

    def logprobs_and_values(
        self, batch: Batch, temperature: float, *, entropy_gradient: bool = False
    ) -> tuple[TokenLogprobs, Tensor]:
        """Return the policy's log-probabilities and the values, from one pass.

        Only where they share a trunk, or read together.
        """
        how: dict[str, bool] = {
            "entropy_gradient": entropy_gradient,
            "checkpointing": self.policy.checkpointing,
        }
        if self.shares_trunk:
            return logprobs_and_values(
                self.model, batch, self.value_of, temperature, role=ADAPTER, **how
            )
        (tokens,), values = logprobs_and_values_by_roles(
            self.model, batch, (ADAPTER,), (_VALUE, self.value_of), temperature, **how
        )
        assert values is not None
        return tokens, values

    def read_by_adapters(
        self, batch: Batch, temperature: float, *, policy: bool, values: bool
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Return log-probabilities of policy and reference, and values, [B, R], from one pass.

        Only where all roles are adapters and the base has packed passes. Without ``policy`` or
        ``values``, these are None.
        """
        roles = [ADAPTER] if policy else []
        tokens, value = logprobs_and_values_by_roles(
            self.model,
            batch,
            [*roles, self.reference.adapter],
            (_VALUE, self.value_of) if values else None,
            temperature,
        )
        return tokens[0].logprobs if policy else None, tokens[-1].logprobs, value

    @property
    def share_base(self) -> bool:
        """Whether policy, reference and value model are adapters that can read in one pass."""
        return self.reference.model is self.model and has_packed_pass(self.model)

    def value_of(self, states: Tensor) -> Tensor:
        """Return the value [...] of last hidden states [..., H] of the value model."""
        with torch.autocast(states.device.type, enabled=False):  # few numbers, and all that is kept
            values: Tensor = self.value_head(states.to(self.value_head.weight.dtype)).squeeze(-1)
        return values.float()

    @torch.no_grad()
    def update_reference(self, decay: float) -> None:
        """Move the reference towards the policy: decay * reference + (1 - decay) * policy."""
        policy = self.policy_parameters
        for name, parameter in self.reference_parameters.items():
            parameter.lerp_(policy[name].to(parameter.dtype), 1 - decay)

    @property
    def models(self) -> list[Any]:
        """All models that the roles hold, each once."""
        held = (self.model, self._value_model, self.reference.model, self.initial_reference.model)
        return list({id(model): model for model in held}.values())

    @property
    def value_model(self) -> Any:
        """The model that the values come from; the policy's where they share one."""
        return self._value_model

    def split(self, *, bfloat16: bool) -> None:
        """Keep this process's share of all weights; `connect` follows, in all processes."""
        for model in self.models:
            split(model, bfloat16=bfloat16)
        self.value_head.to(self.model.device)

    def connect(self) -> None:
        """Make the models ready for passes; gradients are then summed over the processes."""
        for model in self.models:
            connect(model, sums=True)
        connect_head(self.value_head)

    @property
    def policy_parameters(self) -> dict[str, nn.Parameter]:
        """The policy's trainable weights by name."""
        return role_parameters(self.model, ADAPTER)

    @property
    def reference_parameters(self) -> dict[str, nn.Parameter]:
        """The reference's own weights, by the names of the policy's; none where it has none."""
        if self.reference.model is not self.model:
            return role_parameters(self.reference.model, ADAPTER)
        parameters = role_parameters(self.model, _REFERENCE)
        return {under_role(name, _REFERENCE, ADAPTER): p for name, p in parameters.items()}

    @property
    def value_parameters(self) -> dict[str, nn.Parameter]:
        """The value model's trainable weights by name, its head among them."""
        head = {f"value_head.{name}": p for name, p in self.value_head.named_parameters()}
        if self.shares_trunk:
            return head
        return role_parameters(self._value_model, _VALUE) | head


def make_roles(
    policy: Artifact, config: PPOConfig, scorer: Scorer, reference: Artifact | None = None
) -> tuple[Roles, Scorer]:
    """Return the roles that a config asks for, and the scorer, which may have moved in."""
    check_tuning(config.tuning)
    for what, is_set in (
        ("reference of its own", reference is not None),
        ("reference that moves (kl.reference_decay)", config.kl.reference_decay is not None),
        ("activation_checkpointing in PPO", config.activation_checkpointing),
    ):
        if is_set:
            refuse_shares(what)
    check_optimizer(config.optimizer)
    with one_by_one():
        roles = Roles(
            policy,
            config.tuning,
            config.value if config.has_values else None,
            moving_reference=config.kl.reference_decay is not None,
            given_reference=reference,
        )
        if config.activation_checkpointing:
            roles.checkpoint_activations()
        scorer = roles.mount(scorer)
        if config.has_values and config.value.start == "reward":
            roles.start_values_from(scorer)
        if shares_weights():
            device = "cuda" if torch.cuda.is_available() else "cpu"
            roles.split(bfloat16=computes_in_bfloat16(config.precision, device))
    if shares_weights():
        roles.connect()
    for problem in filter(None, map(problem_with_shares, roles.models)):
        raise ModelError(f"Nothing was trained: {problem}.")
    return roles, scorer
