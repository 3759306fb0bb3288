"""The reference of a policy: its start, a copy that follows it, or another model that is given.

With an adapter the base is held once: the start is the base alone or, where the policy started as
an adapter, a frozen copy of that. With full tuning it is a model of its own, which is loaded only
where something reads it.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plumbline.lm.adapters import copy_adapter, is_of_role, role_parameters, under_role
from plumbline.lm.branches import Branches, branch_logprobs
from plumbline.lm.given_reference import load_reference
from plumbline.lm.load import trainable_causal_lm
from plumbline.lm.model_folder import ADAPTER, source_of
from plumbline.lm.policy import Policy
from plumbline.lm.sharding import whole
from plumbline.lm.tuning import TuningConfig, switch_dropout_off
from plumbline.runs.processes import of_all_processes, rows_of_all, share_of, this_process
from plumbline.training.sharding import equal_passes, loaded, refuse_shares
from preference.config import ReferenceConfig
from preference.logprobs import response_sums

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_START, _MOVING = "reference", "moving"


class PolicyAndReference:
    """The policy that trains, and what it is compared with."""

    def __init__(
        self,
        folder: Path,
        tuning: TuningConfig,
        tokenizer: PreTrainedTokenizerBase,
        other: Path | None = None,
        *,
        bfloat16: bool = False,
    ) -> None:
        """Load the policy; ``other`` is the folder of a reference that is not its start.

        ``bfloat16``: whether passes compute in that format, where the weights are shared out.
        """
        self._folder, self._tuning, self._tokenizer = folder, tuning, tokenizer
        self._bfloat16 = bfloat16
        self._keep_start = tuning.has_adapter and other is None
        self.model: Any = loaded(self._load, tuning, bfloat16=bfloat16)
        self.policy = Policy(self.model, tokenizer)
        self._moving: Policy | None = None
        self._has_adapter = tuning.has_adapter
        # A new adapter starts as nothing on its base, so the base alone is the start.
        self._start_adapter: str | None = None
        self._given: Policy | None = None
        if other is not None:
            refuse_shares("reference of its own")
            self._given = load_reference(other, self.policy, folder, tuning)
        elif _START in getattr(self.model, "peft_config", ()):
            self._start_adapter = _START

    def _load(self) -> Any:
        """Load the policy, with a frozen copy of the adapter that it starts as."""
        model = trainable_causal_lm(self._folder, self._tuning)
        switch_dropout_off(model)
        if self._keep_start and source_of(self._folder).adapter is not None:
            copy_adapter(model, ADAPTER, _START)
            model.set_adapter(ADAPTER)
        return model

    @cached_property
    def start(self) -> Policy:
        """The reference as it is before training: the one that was given, or the policy's start."""
        if self._given is not None:
            return self._given
        if self._has_adapter:
            return Policy(self.model, self._tokenizer, self._start_adapter)
        return self._frozen_copy()

    def _frozen_copy(self) -> Policy:
        def load() -> Any:
            model = trainable_causal_lm(self._folder, self._tuning).requires_grad_(False)
            switch_dropout_off(model)
            return model

        model = loaded(load, self._tuning, bfloat16=self._bfloat16)
        return Policy(model, self._tokenizer)

    def start_moving(self) -> None:
        """Make a copy that `update` moves."""
        refuse_shares("reference that moves")
        if self._has_adapter:
            copy_adapter(self.model, ADAPTER, _MOVING)
            self.model.set_adapter(ADAPTER)
            self._moving = Policy(self.model, self._tokenizer, _MOVING)
        else:
            self._moving = self._frozen_copy()

    @property
    def reference(self) -> Policy:
        """What the policy is compared with: the copy that moves, or the start."""
        return self._moving or self.start

    @property
    def moving_parameters(self) -> dict[str, Any]:
        """The weights of the copy that moves, by the names of the policy's; none without one."""
        if self._moving is None:
            return {}
        own = role_parameters(self._moving.model, _MOVING)
        return {under_role(name, _MOVING, ADAPTER): p for name, p in own.items()}

    @torch.no_grad()
    def update(self, mixing: float) -> None:
        """Move the copy: mixing * policy + (1 - mixing) * copy (TR-DPO; Gorbatovski et al., 2024).

        With ``mixing`` 1 it becomes the policy.
        """
        policy = role_parameters(self.model, ADAPTER)
        for name, parameter in self.moving_parameters.items():
            parameter.lerp_(policy[name].to(parameter.dtype), mixing)

    @torch.no_grad()
    def sums(self, branches: Branches, tokens: Tensor, ld_alpha: float | None) -> Tensor:
        """Return the log-probabilities under the reference, [B, K].

        Of ``K`` responses to each of ``B`` prompts, whose tokens are ``tokens`` [B, K].
        """
        reference = self.reference
        was_training = reference.model.training
        reference.model.eval()
        token_logprobs = branch_logprobs(
            reference.model, branches, role=reference.adapter, pad_id=reference.pad_id
        ).logprobs
        reference.model.train(was_training)
        return response_sums(
            token_logprobs.view(*tokens.shape, -1), tokens.to(token_logprobs.device), ld_alpha
        )

    def digest(self) -> str:
        """Return a digest of the weights of the start: the base's, and its adapter's."""
        content = hashlib.sha256()
        start = self.start
        for name, parameter in sorted(start.model.named_parameters()):
            roles = list(getattr(start.model, "peft_config", ()))
            if any(is_of_role(name, role) for role in roles if role != start.adapter):
                continue
            content.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            held = whole(parameter).detach().cpu().contiguous()
            content.update(held.view(torch.uint8).numpy().tobytes())
        return content.hexdigest()


def cached_sums(
    branches: Branches,
    roles: PolicyAndReference,
    folder: Path,
    *,
    ld_alpha: float | None,
    batch_size: int,
    precision: str,
) -> Tensor:
    """Return the log-probabilities of ``K`` responses to each of ``N`` prompts, [N, K].

    Under the start. They are computed once and kept in ``folder``, by a digest of the weights, the
    ids and how they are computed; other runs on the same ids read them. Which prompts are read
    together is part of the digest, since it decides how the numbers are rounded. ``precision``
    names the number format.
    """
    how = [ld_alpha, precision, str(roles.model.device.type), batch_size, torch.__version__]
    file = folder / f"reference-{_digest([roles.digest(), how], branches)[:32]}.safetensors"
    # The first process decides, since another run may just be writing the file.
    sums: Tensor | None = of_all_processes(_read(file, branches))[0]
    if sums is None:
        sums = _computed(branches, roles, ld_alpha, batch_size)
        if this_process() == 0:
            _write(file, sums)
    return sums


def _digest(how: Sequence[Any], branches: Branches) -> str:
    """Return a digest of JSON with how sums are computed, and the ids, row by row."""
    content = hashlib.sha256(f"{json.dumps(how)[:-1]}, [".encode())
    for number, (prompt, several) in enumerate(zip(*branches, strict=True)):
        content.update(f"{', ' if number else ''}{json.dumps([prompt, *several])}".encode())
    content.update(b"]]")
    return content.hexdigest()


def _computed(
    branches: Branches, roles: PolicyAndReference, ld_alpha: float | None, batch_size: int
) -> Tensor:
    """Return the sums, [N, K], computed with similar lengths together.

    Where several processes share a training, each computes its share of the batches.
    """
    prompts, responses = branches
    lengths = array("l", map(len, prompts))
    order = sorted(range(len(prompts)), key=lengths.__getitem__)
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def read(rows: list[int]) -> Tensor:
        some = Branches([prompts[n] for n in rows], [responses[n] for n in rows])
        tokens = some.tokens.view(len(rows), -1)
        return roles.sums(some, tokens, ld_alpha).float().cpu()

    computed = equal_passes(read, parts[share_of(len(parts))], spare=parts[0])
    sums = torch.zeros(_shape(branches))
    for rows, values in zip(parts, rows_of_all(computed), strict=True):
        sums[rows] = values
    return sums


def _shape(branches: Branches) -> tuple[int, int]:
    return len(branches.prompts), len(branches.responses[0])


def _read(file: Path, branches: Branches) -> Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        sums = load_file(file)["sums"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None  # not there, or cut off while it was written
    return sums if sums.shape == _shape(branches) else None


def _write(file: Path, sums: Tensor) -> None:
    import os

    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(f".{os.getpid()}")
    save_file({"sums": sums}, beside)
    beside.replace(file)


def state_of(roles: PolicyAndReference) -> dict[str, Any]:
    """Return what a checkpoint must keep of a reference that moves."""
    return {"reference": roles.moving_parameters}


def restore(roles: PolicyAndReference, state: Mapping[str, Any]) -> None:
    """Restore what `state_of` returned."""
    parameters = roles.moving_parameters
    for name, value in state.get("reference", {}).items():
        parameters[name].data.copy_(value)


def moves_at(config: ReferenceConfig, step: int) -> bool:
    """Return whether the reference moves after an optimiser step, counted from 1."""
    return config.kind == "moving" and step % config.every == 0
