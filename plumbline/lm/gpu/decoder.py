"""Decoding on a GPU: a static cache, steps as graphs, and no wait for the GPU at any token.

A step reads one token per row, and draws the next. Everything that it reads and writes is in
tensors at fixed addresses. Every few steps the host reads which rows have ended, one window late:
when few enough are left, they move together, and the steps continue with fewer rows.

Shapes: ``B`` rows, ``C`` columns of the cache, ``Q`` query heads, ``G`` key heads, ``E`` head size,
``R`` most new tokens, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.lm.decoding.snapshot import LayerWeights
from plumbline.lm.drawing import Drawn
from plumbline.lm.gpu.attention import Layout, kernel_for, packed_attention
from plumbline.lm.gpu.decode_weights import DecodeWeights
from plumbline.lm.gpu.graphs import Graphs
from plumbline.lm.gpu.layers import ACTIVATIONS
from plumbline.lm.gpu.packing import move, pack_texts
from plumbline.lm.gpu.regions import free_rows, region

#: The host reads which rows have ended once per this many steps.
LOOK_EVERY = 8
#: Attention looks at this many columns of the cache, and then at twice as many.
_FEWEST_COLUMNS = 128
#: The cache has a multiple of this many.
_MULTIPLE = 64
#: Prompts of so many tokens are read in one pass.
_PREFILL_TOKENS = 1 << 16

Draw = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From logits [B, V] and uniform numbers [B] to tokens and their log-probabilities, [B] each."""


class StaticDecoder:
    """Rows in the middle of being generated, in tensors at fixed addresses."""

    def __init__(self, weights: DecodeWeights, rows: int, columns: int, new_tokens: int) -> None:
        """Make room for ``rows`` texts of ``columns`` tokens, ``new_tokens`` of them new."""
        self.weights = weights
        held = weights.snapshot
        device = held.device
        columns += -columns % _MULTIPLE
        self.rows, self.columns, self.new_tokens = rows, columns, new_tokens
        cache = (len(held.layers), rows, columns, held.key_heads, held.head_size)
        self._keys, self._values = (held.embedding.new_zeros(cache) for _ in range(2))
        self._cos, self._sin = held.rotation(columns)
        # Of the rows that the cache holds; `_live` says which rows of the results they are.
        whole = {"dtype": torch.long, "device": device}
        self._live, self._positions, self._tokens = (torch.zeros(rows, **whole) for _ in range(3))  # type: ignore[call-overload]
        self._done = torch.zeros(rows, dtype=torch.bool, device=device)
        self._step = torch.zeros(1, **whole)  # type: ignore[call-overload]
        self._state = held.embedding.new_zeros(rows, held.embedding.shape[1])
        # The last row of the results is nobody's: rows that fill up a bucket write there.
        self._uniforms = torch.zeros(rows + 1, new_tokens, dtype=torch.float64, device=device)
        self._drawn = Drawn(
            torch.zeros(rows + 1, new_tokens, **whole),  # type: ignore[call-overload]
            torch.zeros(rows + 1, new_tokens, device=device),
            torch.zeros(rows + 1, new_tokens, device=device),
            torch.zeros(rows + 1, **whole),  # type: ignore[call-overload]
            torch.zeros(rows + 1, dtype=torch.bool, device=device),
        )
        self._ends = torch.zeros(0, **whole)  # type: ignore[call-overload]
        self._graphs = Graphs(device)
        self._what: tuple[object, ...] = ()
        self._draw: Draw = _no_draw
        self._value_head: Callable[[Tensor], Tensor] | None = None

    def fits(
        self, rows: int, columns: int, new_tokens: int, dtype: torch.dtype | None = None
    ) -> bool:
        """Return whether there is room, in a number format where one is asked for."""
        room = rows <= self.rows and columns <= self.columns and new_tokens <= self.new_tokens
        return room and dtype in (None, self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of weights and cache."""
        return self.weights.snapshot.dtype

    @property
    def bytes(self) -> int:
        """How much memory the cache takes."""
        return 2 * self._keys.numel() * self._keys.element_size()

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        uniforms: Tensor,
        draw: Draw,
        end_ids: frozenset[int],
        value_head: Callable[[Tensor], Tensor] | None,
        what: tuple[object, ...],
    ) -> Drawn:
        """Return a response to each prompt, drawn by ``uniforms`` [B, R].

        ``what`` names the draw: with another name, steps are captured again.
        """
        if (what, tuple(sorted(end_ids)), value_head) != self._what:
            device = self._step.device
            self._what = (what, tuple(sorted(end_ids)), value_head)
            self._ends = torch.tensor(sorted(end_ids), dtype=torch.long, device=device)
            self._draw, self._value_head = draw, value_head
            self._graphs = Graphs(device)
        self._begin(prompts, uniforms)
        self._draw_next(self._buckets(len(prompts))[0])
        self._run(prompts, uniforms.shape[1])
        rows = len(prompts)
        return Drawn(*(tensor[:rows] for tensor in self._drawn))

    # --- the loop, on the host -------------------------------------------------------------

    def _run(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
        """Take steps until every row has ended, or has ``new_tokens``."""
        longest = max(map(len, prompts))
        buckets = self._buckets(len(prompts))
        rows, live = buckets[0], len(prompts)
        seen: tuple[Tensor, torch.cuda.Event | None] | None = None
        for step in range(1, new_tokens):
            columns = self._columns(longest + step)
            self._graphs.run((rows, columns), lambda r=rows, c=columns: self._next(r, c))  # type: ignore[misc]
            if step % LOOK_EVERY:
                continue
            # What is read now was copied a window ago: the GPU has a window of work meanwhile.
            ended = self._read(seen)
            seen = None
            if ended is not None:
                live = int((~ended).sum())
                smaller = [bucket for bucket in buckets if live <= bucket < rows]
                if live == 0:
                    return
                if smaller:
                    rows = smaller[-1]
                    self._keep((~ended).nonzero().squeeze(1), rows)
                    continue  # the flags that were copied are those of rows that have moved
            seen = self._look(rows)

    def _look(self, rows: int) -> tuple[Tensor, torch.cuda.Event | None]:
        """Begin to copy to the host which rows have ended."""
        flags = self._done[:rows]
        if flags.device.type != "cuda":
            return flags.clone(), None
        here = torch.empty(rows, dtype=torch.bool, pin_memory=True)
        here.copy_(flags, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return here, event

    @staticmethod
    def _read(seen: tuple[Tensor, torch.cuda.Event | None] | None) -> Tensor | None:
        if seen is None:
            return None
        flags, event = seen
        if event is not None:
            event.synchronize()
        return flags

    def _buckets(self, rows: int) -> list[int]:
        """Return the numbers of rows that steps are made for, falling; the first holds ``rows``."""
        sizes = [self.rows]
        while sizes[-1] > 2:
            sizes.append(-(-sizes[-1] // 2))
        return [size for size in sizes if size >= rows][-1:] + [s for s in sizes if s < rows]

    def _columns(self, used: int) -> int:
        columns = _FEWEST_COLUMNS
        while columns < used:
            columns *= 2
        return min(columns, self.columns)

    # --- rows begin, move together, and end -------------------------------------------------

    def _begin(self, prompts: Sequence[Sequence[int]], uniforms: Tensor) -> None:
        """Read the prompts, each different one once, and fill the cache."""
        rows, bucket = len(prompts), self._buckets(len(prompts))[0]
        device = self._step.device
        new_tokens = uniforms.shape[1]
        self._uniforms[:rows, :new_tokens] = move(uniforms, device)
        for tensor in self._drawn:
            tensor.zero_()
        self._drawn.lengths.fill_(new_tokens)
        self._step.zero_()
        number = torch.arange(bucket)
        lengths = torch.zeros(bucket, dtype=torch.long)
        lengths[:rows] = torch.tensor([len(prompt) for prompt in prompts])
        # Rows that fill up the bucket have ended, and write where nobody reads.
        self._live[:bucket] = move(torch.where(number < rows, number, self.rows), device)
        self._done[:bucket] = move(number >= rows, device)
        self._positions[:bucket] = move(lengths, device)
        self._tokens[:bucket] = 0
        places: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            places.setdefault(tuple(prompt), []).append(row)
        part: list[tuple[int, ...]] = []
        for prompt in places:
            if part and sum(map(len, part)) + len(prompt) > _PREFILL_TOKENS:
                self._prefill(part, places)
                part = []
            part.append(prompt)
        self._prefill(part, places)

    def _prefill(
        self, prompts: Sequence[tuple[int, ...]], places: dict[tuple[int, ...], list[int]]
    ) -> None:
        """Read different prompts in one pass without padding; copy each to all of its rows."""
        held = self.weights.snapshot
        device = self._step.device
        packing = pack_texts(prompts)
        copies = [
            (row, start, len(prompt))
            for prompt, start in zip(prompts, packing.offsets.tolist(), strict=False)
            for row in places[prompt]
        ]
        lengths = torch.tensor([length for _, _, length in copies])
        inside = torch.cat([torch.arange(length) for _, _, length in copies])
        to_rows, from_starts = (
            torch.tensor([copy[column] for copy in copies]).repeat_interleave(lengths)
            for column in (0, 1)
        )
        source = move(from_starts + inside, device)
        to = (move(to_rows, device), move(inside, device))
        lasts = move(torch.tensor([start + length - 1 for _, start, length in copies]), device)
        rows = move(torch.tensor([row for row, _, _ in copies]), device)
        packing = packing.to(device)
        kernel = kernel_for(device, held.dtype, held.query_heads, held.key_heads, held.head_size)
        x = held.embedding[packing.ids]
        cos, sin = (table[packing.positions].unsqueeze(1) for table in (self._cos, self._sin))
        layout = Layout.of(packing)
        for layer, keys, values in zip(held.layers, self._keys, self._values, strict=True):
            q, k, v = self._before(x, layer, cos, sin)
            keys.index_put_(to, k[source])
            values.index_put_(to, v[source])
            mixed = packed_attention(q, k, v, layout, 1.0, None, kernel)
            x = self._after(x, mixed, layer)
        self._state[rows] = F.rms_norm(x[lasts], x.shape[-1:], held.norm, held.epsilon)

    def _keep(self, rows: Tensor, bucket: int) -> None:
        """Move rows [live] to the front; fill up the bucket with rows that have ended."""
        filled = torch.zeros(bucket, dtype=torch.long)
        filled[: len(rows)] = rows
        nobodys = torch.arange(bucket) >= len(rows)
        index, nobodys = (move(tensor, self._step.device) for tensor in (filled, nobodys))
        for cache in (self._keys, self._values):
            for layer in cache:
                layer[:bucket] = layer[index]
        for tensor in (self._live, self._positions, self._tokens, self._done):
            tensor[:bucket] = tensor[index]
        self._live[:bucket].masked_fill_(nobodys, self.rows)
        self._done[:bucket].logical_or_(nobodys)

    # --- a step, on the GPU -----------------------------------------------------------------

    def _next(self, rows: int, columns: int) -> None:
        """Read each row's token, and draw the next one. No word from the GPU is waited for."""
        held = self.weights.snapshot
        positions = self._positions[:rows]
        here = torch.arange(rows, device=positions.device)
        x = held.embedding[self._tokens[:rows]]
        cos, sin = (table[positions].unsqueeze(1) for table in (self._cos, self._sin))
        hidden = torch.arange(columns, device=x.device) > positions.unsqueeze(1)
        bias = torch.zeros(rows, columns, dtype=x.dtype, device=x.device)
        bias = bias.masked_fill_(hidden, float("-inf"))[:, None, None]
        shape = (rows, held.key_heads, -1, held.head_size)
        for layer, keys, values in zip(held.layers, self._keys, self._values, strict=True):
            q, k, v = self._before(x, layer, cos, sin)
            keys.index_put_((here, positions), k)
            values.index_put_((here, positions), v)
            # The query heads of a group are more queries of its key head.
            mixed = F.scaled_dot_product_attention(
                q.view(shape),
                keys[:rows, :columns].transpose(1, 2),
                values[:rows, :columns].transpose(1, 2),
                attn_mask=bias,
                scale=1.0,
            )
            x = self._after(x, mixed.reshape(rows, held.query_heads, -1), layer)
        self._state[:rows] = F.rms_norm(x, x.shape[-1:], held.norm, held.epsilon)
        self._positions[:rows] += 1
        self._draw_next(rows)

    def _draw_next(self, rows: int) -> None:
        """Draw a token per row from its state, and note it where the row still lives."""
        held, drawn, step = self.weights.snapshot, self._drawn, self._step
        live, done, state = self._live[:rows], self._done[:rows], self._state[:rows]
        logits = F.linear(state, *held.head.plain)
        chosen, logprobs = self._draw(logits, self._uniforms[live, step])
        drawn.tokens.index_put_((live, step), chosen)
        drawn.logprobs.index_put_((live, step), logprobs)
        if self._value_head is not None:
            drawn.values.index_put_((live, step), self._value_head(state).float())
        ending = (chosen.unsqueeze(1) == self._ends).any(1) & ~done
        drawn.lengths[live] = torch.where(ending, step + 1, drawn.lengths[live])
        drawn.finished[live] = drawn.finished[live] | ending
        self._done[:rows] = done | ending
        self._tokens[:rows] = chosen
        step += 1

    def _before(
        self, x: Tensor, layer: LayerWeights, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        held = self.weights.snapshot
        free_rows(x, cos, sin)
        return _queries_keys_values(
            x, cos, sin, *layer.qkv.plain, layer.head_norms,
            (held.query_heads, held.key_heads, held.head_size), (held.epsilon, held.head_epsilon),
        )  # fmt: skip

    def _after(self, x: Tensor, mixed: Tensor, layer: LayerWeights) -> Tensor:
        free_rows(x, mixed)
        linear = [*layer.out.plain, *layer.gate_up.plain, *layer.down.plain]
        held = self.weights
        return _rest_of_layer(x, mixed, linear, held.snapshot.epsilon, held.activation)


@region
def _queries_keys_values(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    matrix: Tensor,
    offset: Tensor | None,
    head_norms: Tensor | None,
    heads: tuple[int, int, int],
    epsilons: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries [B, Q, E], keys and values [B, G, E] from the residual stream [B, D]."""
    queries, groups, size = heads
    normed = F.rms_norm(x, x.shape[-1:], None, epsilons[0])
    qkv = F.linear(normed, matrix, offset).view(-1, queries + 2 * groups, size)
    qk = qkv[:, : queries + groups]
    if head_norms is not None:
        qk = F.rms_norm(qk, (size,), None, epsilons[1]) * head_norms
    qk = qk * cos + qk.roll(size // 2, -1) * sin
    return qk[:, :queries], qk[:, queries:], qkv[:, queries + groups :]


@region
def _rest_of_layer(
    x: Tensor, mixed: Tensor, linear: list[Tensor | None], epsilon: float, activation: str
) -> Tensor:
    """Return the residual stream [B, D] after a layer, from what attention mixed [B, Q, E]."""
    out, out_bias, gate_up, gate_up_bias, down, down_bias = linear
    x = x + F.linear(mixed.flatten(1), out, out_bias)  # type: ignore[arg-type]
    normed = F.rms_norm(x, x.shape[-1:], None, epsilon)
    gate, up = F.linear(normed, gate_up, gate_up_bias).chunk(2, dim=-1)  # type: ignore[arg-type]
    return x + F.linear(ACTIVATIONS[activation](gate) * up, down, down_bias)  # type: ignore[arg-type]


def _no_draw(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    raise AssertionError("a decoder draws nothing before it generates")
