"""Weights of which each process holds some numbers, by DeepSpeed (ZeRO-3).

A decoder layer's weights are gathered for its pass, and given up after it; so are those of each
module beside the layers. Rajbhandari et al. (2020), https://arxiv.org/abs/1910.02054.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from plumbline.lm.backbone import backbone
from plumbline.runs.processes import join
from plumbline.runs.shardings import check_deepspeed

T = TypeVar("T")

#: Numbers that are summed over the processes at once.
_BUCKET = 1 << 24
#: What gathers the weights of each model of this process.
_readers: list[Any] = []


def import_deepspeed() -> Any:
    """Return DeepSpeed, quiet, with the processes of this stage joined."""
    check_deepspeed("This launch")
    join()
    on_gpu = torch.cuda.is_available()
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if on_gpu else "cpu")
    warnings.filterwarnings("ignore", module=r"torch\.distributed")  # of functions that it calls
    import deepspeed

    if not on_gpu:
        # It would compile a kernel for sums of bfloat16 between processes, which nothing here uses.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def settings(stage: int) -> dict[str, Any]:
    """Return DeepSpeed's config, which leaves clipping and the count of passes to trainings."""
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": _BUCKET,
        "overlap_comm": torch.cuda.is_available(),
    }
    if stage == 3:
        # No weight is whole in each process, however small. And weights are gathered for the pass
        # that asks for them: a training makes passes in different orders.
        zero |= {"stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 0}
    else:
        zero |= {"allgather_bucket_size": _BUCKET, "compute_grad_norm": False}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # as many passes make a step as there were
        "gradient_clipping": 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


class Zero3:
    """How a model's weights are shared out, and gathered."""

    casts = False
    """Whether passes compute in bfloat16 by themselves."""

    def split(self, model: Any, *, bfloat16: bool) -> None:
        """Leave all to `connect`, in which DeepSpeed sends the first process's weights to all."""

    def connect(self, model: Any, *, sums: bool) -> None:
        """Keep this process's share of a model's weights, on its device; all processes do so."""
        for layer in getattr(backbone(model), "layers", ()):
            import_deepspeed().utils.set_z3_leaf_module(layer, True)  # gathered all together
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()  # as DeepSpeed steps
        _share_out(model)

    def connect_head(self, head: nn.Module) -> None:
        """Share out a head beside the models, too."""
        _share_out(head)

    def run(self, model: Any, function: Callable[[], T]) -> T:
        """Return what a function returns that makes one pass through parts of a model."""
        return function()

    @contextmanager
    def gathered(self, model: Any) -> Iterator[None]:
        """Let each process hold all weights of a model while the block runs, for reading alone."""
        give_up_leftovers()
        weights = list(model.parameters())
        with import_deepspeed().zero.GatheredParameters(weights):
            for weight in weights:
                weight.is_external_param = True  # else a module would give it up after its pass
            try:
                yield
            finally:
                for weight in weights:
                    weight.is_external_param = False


def _share_out(model: nn.Module) -> None:
    """Keep this process's share of weights, and let each module gather its own for a pass."""
    deepspeed = import_deepspeed()
    deepspeed.zero.Init(module=model, config_dict_or_path=settings(3), dtype=torch.float32)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device)
    engine = deepspeed.initialize(model=model, config=settings(3), dist_init_required=False)[0]
    for weight in model.parameters():
        # Gradients are shared out as they come: not all weights of a layer have one in a pass.
        weight.__dict__.pop("ds_z3_leaf_module", None)
    # DeepSpeed would learn the order of the modules in a pass, and gather weights by it. But a
    # training here makes passes of several kinds. So weights are gathered when they are needed.
    engine.optimizer.fwd_pre_hook.remove()
    _readers.append(engine.optimizer)


def give_up_leftovers() -> None:
    """Give up weights that were gathered for a backward pass which has ended.

    A module whose inputs need no gradient does not notice its end.
    """
    for reader in _readers:
        reader.release_backward_leftovers()


def part_of(weight: Any) -> Any:
    """Return this process's numbers of a weight, [N], and where they begin."""
    from deepspeed import comm

    most = int(weight.partition_numel())  # the last process's are padded
    start = most * int(comm.get_rank())
    count = max(0, min(most, int(weight.ds_numel) - start))
    return weight.ds_tensor.detach().view(-1)[:count], start
