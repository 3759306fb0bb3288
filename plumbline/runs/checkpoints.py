"""Checkpoints without pickle: tensors in safetensors, everything else in JSON.

A checkpoint is whole or absent: it is written under another name and renamed, and the one before
is deleted only after that. Training that resumes from a checkpoint ends with the same bytes as
training that was never stopped.

Where several processes share the weights, each writes its own shares into a file of its own. A
share is some consecutive numbers of a tensor, so that another number of processes can read them.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.runs.artifacts import read_json, write_json
from plumbline.runs.processes import mesh, number_of_processes, sharding, share_of, this_process
from plumbline.runs.shardings import DDP, SHARDINGS
from plumbline.runs.shares import KeptInShares, Share

if TYPE_CHECKING:
    import torch

_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_SHARES = "shares-{process}-of-{processes}.safetensors"


class CheckpointFolder:
    """The place where one stage keeps its latest checkpoint."""

    def __init__(self, root: Path, *, writes: bool = True) -> None:
        self.root = root
        self._writes = writes
        """False in all but one of the processes that share a stage."""

    @property
    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        steps = [int(path.name.removeprefix("step-")) for path in self.root.glob("step-*")]
        return self.root / f"step-{max(steps)}" if steps else None

    def save(
        self, step: int, tree: Mapping[str, Any], also: Callable[[Path], None] | None = None
    ) -> None:
        """Save a tree of mappings, sequences, tensors and JSON values as the latest checkpoint.

        ``also`` may write further files into the checkpoint's folder before it appears. Where the
        processes share the weights, all call this.
        """
        from safetensors.torch import save_file

        if not self._writes and sharding() is None:
            return
        tensors: dict[str, torch.Tensor] = {}
        shares: dict[str, torch.Tensor] = {}
        skeleton = _pack(tree, "", tensors, shares, set())
        beside = self.root / ".new"
        if self._writes:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
        if sharding() is not None:
            _meet()
            save_file(shares, beside / _SHARES.format(**_who()))
            _meet()
        if not self._writes:
            return
        save_file(tensors, beside / _TENSORS)
        write_json(beside / _STATE, skeleton)
        if also is not None:
            also(beside)
        target, aside = self.root / f"step-{step}", self.root / ".old"
        shutil.rmtree(aside, ignore_errors=True)
        if target.exists():  # it is whole, or not there, also where this is killed
            target.rename(aside)
        beside.rename(target)
        for old in self.root.glob("step-*"):
            if old != target:
                shutil.rmtree(old)
        shutil.rmtree(aside, ignore_errors=True)

    def load(self) -> Any:
        """Return the tree of the latest checkpoint, or None where there is none."""
        from safetensors.torch import load_file

        latest = self.latest
        if latest is None:
            return None
        return _unpack(read_json(latest / _STATE), load_file(latest / _TENSORS), latest)


def rng_state() -> dict[str, Any]:
    """Return the state of every global random generator."""
    import numpy as np
    import torch

    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": {"version": version, "internal": list(internal), "gauss": gauss},
        "numpy": {
            "name": name,
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.uint32).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    import numpy as np
    import torch

    python, numpy_state = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["internal"]), python["gauss"]))
    np.random.set_state(
        (
            numpy_state["name"],
            numpy_state["keys"].numpy().astype(np.uint32),
            numpy_state["position"],
            numpy_state["has_gauss"],
            numpy_state["cached"],
        )
    )
    torch.random.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _kept(folder: Path, name: str, shape: Sequence[int]) -> torch.Tensor | KeptInShares:
    """Return a tensor that was written in shares: of the rows of this process, or all of it.

    Where weights are shared in another way than by rows, it is read when it is known how.
    """
    files = folder.glob(_SHARES.format(process="*", processes="*"))
    kept = KeptInShares(
        sorted(files, key=lambda file: int(file.name.split("-")[1])), name, tuple(shape)
    )
    if sharding() is None:
        return kept.whole()
    if not SHARDINGS[sharding() or DDP].by_rows:
        return kept
    import torch
    from torch.distributed.tensor import DTensor, Shard

    process, processes = this_process(), number_of_processes()
    size = -(-shape[0] // processes)  # as `torch.chunk` cuts
    start, stop = (min(shape[0], n * size) for n in (process, process + 1))
    row = math.prod(shape[1:])
    share = kept.part(start * row, stop * row).reshape(stop - start, *shape[1:])
    whole = torch.empty(tuple(shape), device="meta")
    return DTensor.from_local(
        share.to(mesh().device_type), mesh(), [Shard(0)],
        run_check=False, shape=whole.shape, stride=whole.stride(),
    )  # fmt: skip


def _share_of(value: Any) -> tuple[torch.Tensor, Sequence[int]] | None:
    """Return what this process holds of a tensor, and the shape of the whole; None for others."""
    if isinstance(value, KeptInShares):  # which was read, and is to be kept once more
        own = share_of(value.size)
        return value.part(own.start, own.stop), value.shape
    if isinstance(value, Share):
        return value.values, value.shape
    if hasattr(value, "device_mesh"):
        return value.detach().to_local(), value.shape
    return None


def _meet() -> None:
    """Wait for the other processes."""
    import torch

    torch.distributed.barrier()


def _who() -> dict[str, int]:
    return {"process": this_process(), "processes": number_of_processes()}


def _pack(
    value: Any,
    path: str,
    tensors: dict[str, torch.Tensor],
    shares: dict[str, torch.Tensor],
    places: set[int],
) -> Any:
    """Return the JSON skeleton of a tree and collect its tensors by path.

    Mappings are stored as pairs, because an optimiser's keys are integers and JSON's are not.
    ``shares`` are this process's rows of tensors that all processes hold together. ``places`` are
    the memory that tensors have so far.
    """
    import torch

    share = _share_of(value)
    if share is not None:
        shares[path] = share[0].detach().cpu().clone()
        return {"shares": {"of": path, "shape": list(share[1])}}
    if isinstance(value, torch.Tensor):
        held = value.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory; only these are copied.
        place = held.untyped_storage().data_ptr()
        tensors[path] = held.clone() if place in places else held
        places.add(place)
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {
            "pairs": [
                [key, _pack(item, f"{path}/{key}", tensors, shares, places)]
                for key, item in value.items()
            ]
        }
    if isinstance(value, tuple | list):
        name = "tuple" if isinstance(value, tuple) else "list"
        items = [
            _pack(item, f"{path}/{n}", tensors, shares, places) for n, item in enumerate(value)
        ]
        return {name: items}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"{path or 'the checkpoint'} is {type(value).__name__}, which has no safe form")


def _unpack(skeleton: Any, tensors: Mapping[str, torch.Tensor], folder: Path) -> Any:
    ((form, content),) = skeleton.items()
    if form == "tensor":
        return tensors[content]
    if form == "shares":
        return _kept(folder, content["of"], content["shape"])
    if form == "pairs":
        return {key: _unpack(item, tensors, folder) for key, item in content}
    if form == "value":
        return content
    items = [_unpack(item, tensors, folder) for item in content]
    return tuple(items) if form == "tuple" else items
