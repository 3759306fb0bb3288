"""A step of few and fixed operations, captured as a CUDA graph; a plain call elsewhere.

A step reads and writes tensors at fixed addresses and depends on nothing else. The first call of a
kind of step runs it, which compiles what is not compiled yet; it is captured then, and from the
second call on the graph is replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch

from plumbline.lm.gpu.status import FastPath, switch_off


class Graphs:
    """Steps by kind, each captured once; all share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self._seen: set[Hashable] = set()
        self._pool: Any = None

    def run(self, kind: Hashable, step: Callable[[], None]) -> None:
        """Take a step."""
        graph = self._graphs.get(kind)
        if graph is not None:
            graph.replay()
            return
        if self._device.type != "cuda":
            step()
            return
        if kind not in self._seen:
            self._seen.add(kind)
            step()
            return
        if kind not in self._graphs:
            self._graphs[kind] = self._capture(step)
        self.run_now(kind, step)

    def run_now(self, kind: Hashable, step: Callable[[], None]) -> None:
        """Replay what was captured, or take the step as it is where that failed."""
        graph = self._graphs[kind]
        if graph is None:
            step()
        else:
            graph.replay()

    def _capture(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            torch.cuda.synchronize(self._device)
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                step()
        except (RuntimeError, torch.AcceleratorError) as error:
            switch_off(FastPath.GRAPHS, self._device, f"capturing failed: {error}")
            return None
        return graph
