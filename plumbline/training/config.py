"""The settings of gradient descent, the same for every stage that trains on a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from plumbline.config import Check, Config, not_in_identity, only_when
from plumbline.lm.precision import computes_in_bfloat16
from plumbline.training.optimizers import OPTIMIZERS, check_optimizer
from plumbline.training.processes import share_of_batch
from plumbline.training.sharding import check_optimizer as check_for_shares


class TrainingConfig(Config):
    """How weights are trained."""

    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    epochs: float = only_when(lambda config: config.max_steps is None, "max_steps: null", 1.0, gt=0)
    """Passes over the data."""
    max_steps: int | None = Field(None, ge=1)
    """Optimiser steps. Null lets epochs decide."""
    batch_size: int = Field(16, ge=1)
    """Examples in one forward and backward pass; of all processes, where several share it."""
    gradient_accumulation: int = Field(1, ge=1)
    """Passes whose gradients make one optimiser step."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    adam_beta2: float = Field(0.999, gt=0, lt=1)
    """AdamW's second-moment decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    bf16: bool | None = None
    """Compute in bfloat16 over the weights as they are held. Null: on a GPU that has it."""
    optimizer: Annotated[str, OPTIMIZERS] = "adamw"
    """How AdamW holds its moments: in 32 or 8 bits, on the GPU or paged out where it is full. All
    but adamw need bitsandbytes."""
    activation_checkpointing: bool = not_in_identity(False)
    """Recompute activations in the backward pass: less memory, more time."""
    log_every: int = Field(10, ge=1)
    """Optimiser steps between two lines of training figures in metrics.jsonl."""
    checkpoint_every: int = not_in_identity(100, ge=1)
    """Optimiser steps between two checkpoints; a multiple of log_every."""
    report_to: tuple[str, ...] = not_in_identity(())
    """Trackers that transformers knows, such as tensorboard or wandb. None by default."""

    @model_validator(mode="after")
    def _checkpoints_fall_on_log_lines(self) -> TrainingConfig:
        if self.checkpoint_every % self.log_every:
            raise ValueError(
                f"checkpoint_every is {self.checkpoint_every} and log_every {self.log_every}, so a "
                "checkpoint would fall between two log lines and a resumed run would average the "
                f"first line over fewer steps. Set it to a multiple of {self.log_every}"
            )
        return self

    def checks_before_work(self) -> Sequence[Check]:
        """Look for the package of the optimizer."""
        default = type(self).model_fields["optimizer"].default
        return () if self.optimizer == default else (partial(check_optimizer, self.optimizer),)

    @property
    def computes_in_bfloat16(self) -> bool:
        """What ``bf16`` means on this machine."""
        if self.bf16 is not None:
            return self.bf16
        return torch.cuda.is_available() and computes_in_bfloat16("auto", "cuda")

    @property
    def examples_per_step(self) -> int:
        """Examples behind one optimiser step."""
        return self.batch_size * self.gradient_accumulation

    def arguments(self, scratch: Path, seed: int) -> dict[str, Any]:
        """Return what this means for `TrainingArguments`."""
        check_for_shares(self.optimizer)
        return {
            "output_dir": str(scratch),
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": self.schedule,
            "warmup_steps": self.warmup_share,  # below 1 it is a share
            "num_train_epochs": self.epochs,
            "max_steps": self.max_steps if self.max_steps is not None else -1,
            "per_device_train_batch_size": share_of_batch(self.batch_size),
            "gradient_accumulation_steps": self.gradient_accumulation,
            "weight_decay": self.weight_decay,
            "adam_beta2": self.adam_beta2,
            "max_grad_norm": self.max_grad_norm,
            "bf16": self.computes_in_bfloat16,
            # Without it, transformers refuses bfloat16 where there is no GPU.
            "use_cpu": self.computes_in_bfloat16 and not torch.accelerator.is_available(),
            "ddp_find_unused_parameters": False,  # every weight that trains is used in each step
            "optim": OPTIMIZERS[self.optimizer].transformers_name,
            "activation_checkpointing": self.activation_checkpointing,
            "logging_steps": self.log_every,
            "save_strategy": "steps",
            "save_steps": self.checkpoint_every,
            "seed": seed,
            "data_seed": seed,
            "report_to": list(self.report_to) or "none",
            "disable_tqdm": True,
        }

    def trl_arguments(self, scratch: Path, seed: int) -> dict[str, Any]:
        """Return the same for the configs of TRL's trainers, whose rows are tokenised already."""
        return {
            **self.arguments(scratch, seed),
            "max_length": None,
            "gradient_checkpointing": self.activation_checkpointing,
        }
