"""A snapshot at work: prompts in one pass, then a token a row with a preallocated cache.

Shapes: ``B`` rows, ``P`` prompt positions (padded on the left), ``C`` columns of the cache, ``D``
width, ``Q`` query heads, ``G`` key heads, ``E`` head size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.lm.decoding.snapshot import LayerWeights, Snapshot

#: The cache grows by this many columns, and attention looks at all of them: products of round and
#: repeated shapes are faster than products whose shape changes with every token.
_COLUMNS = 32
#: Prompts run through the layers this many tokens at a time, so that the layers' intermediate
#: results stay in the processor's cache.
_PREFILL_TOKENS = 4096
#: Longer prompts go to torch's fused attention, whose [P, P] shares are never held.
_LONGEST_BY_PRODUCTS = 512


class Decoder:
    """Rows in the middle of being generated."""

    def __init__(self, snapshot: Snapshot, ids: Tensor, mask: Tensor, new_tokens: int) -> None:
        """Read prompts [B, P] with their attention mask; at most ``new_tokens`` more will come."""
        self._weights = snapshot
        rows, width = ids.shape
        shape = (len(snapshot.layers), rows, snapshot.key_heads, 0, snapshot.head_size)
        self._keys = list(snapshot.embedding.new_zeros(shape))
        self._values = list(snapshot.embedding.new_zeros(shape))
        # Added to the scores: nothing at what may be seen, minus infinity at the rest.
        self._attention_bias = snapshot.embedding.new_zeros(rows, snapshot.key_heads, 0)
        self._cos, self._sin = snapshot.rotation(width + new_tokens)
        self._positions = mask.sum(1)
        self._filled = width
        self._grow(width)
        self._attention_bias[:, :, :width] = 0.0
        self._attention_bias[:, :, :width].masked_fill_((mask == 0).unsqueeze(1), float("-inf"))
        self.state = self._prefill(ids, mask)

    def logits(self) -> Tensor:
        """Return [B, V] for the next token of each row."""
        return self._weights.head.of(self.state)

    def step(self, tokens: Tensor) -> None:
        """Read one more token a row, [B]."""
        weights, column = self._weights, self._filled
        rows, heads, groups, size = len(tokens), *self._heads
        x = weights.embedding[tokens]
        cos = self._cos[self._positions].unsqueeze(1)
        sin = self._sin[self._positions].unsqueeze(1)
        if column == self._attention_bias.shape[2]:
            self._grow(1)
        self._filled += 1
        self._positions = self._positions + 1
        self._attention_bias[:, :, column] = 0.0
        attention_bias = self._attention_bias.view(rows * groups, 1, -1)
        for layer, keys, values in zip(weights.layers, self._keys, self._values, strict=True):
            qk, v = self._project(x, layer, cos, sin)
            keys[:, :, column] = qk[:, heads:]
            values[:, :, column] = v
            queries = qk[:, :heads].reshape(rows * groups, heads // groups, size)
            scores = torch.baddbmm(attention_bias, queries, keys.flatten(0, 1).transpose(1, 2))
            mixed = torch.bmm(torch.softmax(scores, dim=-1), values.flatten(0, 1))
            x = self._finish(x, mixed.view(rows, heads * size), layer)
        self.state = _norm(x, weights.epsilon) * weights.norm

    def keep(self, rows: Tensor) -> None:
        """Keep these rows only; a row may be named several times."""
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]
        self._positions, self._attention_bias = self._positions[rows], self._attention_bias[rows]
        self.state = self.state[rows]

    def _grow(self, columns: int) -> None:
        """Make room for more columns. New ones are zero, as they are multiplied by zero."""
        more = -(-columns // _COLUMNS) * _COLUMNS
        self._keys = [_lengthened(keys, more) for keys in self._keys]
        self._values = [_lengthened(values, more) for values in self._values]
        self._attention_bias = F.pad(self._attention_bias, (0, more), value=float("-inf"))

    @property
    def _heads(self) -> tuple[int, int, int]:
        return self._weights.query_heads, self._weights.key_heads, self._weights.head_size

    def _prefill(self, ids: Tensor, mask: Tensor) -> Tensor:
        rows = max(1, _PREFILL_TOKENS // ids.shape[1])
        parts = [
            self._prefill_rows(ids[start : start + rows], mask[start : start + rows], start)
            for start in range(0, len(ids), rows)
        ]
        return torch.cat(parts)

    def _prefill_rows(self, ids: Tensor, mask: Tensor, first: int) -> Tensor:
        weights = self._weights
        rows, width = ids.shape
        heads, groups, size = self._heads
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cos, sin = self._cos[positions].flatten(0, 1), self._sin[positions].flatten(0, 1)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        # Causal, without padding; a padded position sees itself, which nothing else sees.
        seen = torch.ones(width, width, dtype=torch.bool, device=ids.device).tril()
        seen = seen & mask.bool().unsqueeze(1)
        seen |= torch.eye(width, dtype=torch.bool, device=ids.device)
        attention_bias = torch.zeros(rows, 1, width, width, dtype=weights.dtype, device=ids.device)
        attention_bias.masked_fill_(~seen.unsqueeze(1), float("-inf"))
        long = width > _LONGEST_BY_PRODUCTS
        if not long:
            attention_bias = attention_bias.expand(rows, heads, width, width).flatten(0, 1)
        x = weights.embedding[ids.flatten()]
        for layer, all_keys, all_values in zip(
            weights.layers, self._keys, self._values, strict=True
        ):
            qk, v = self._project(x, layer, cos, sin)
            qk, v = (t.view(rows, width, -1, size).transpose(1, 2) for t in (qk, v))
            all_keys[first : first + rows, :, :width] = qk[:, heads:]
            all_values[first : first + rows, :, :width] = v
            repeats = heads // groups
            k, v = (t.repeat_interleave(repeats, dim=1) for t in (qk[:, heads:], v))
            q = qk[:, :heads]
            if long:
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_bias, scale=1.0)
            else:
                q, k, v = (t.reshape(rows * heads, width, size) for t in (q, k, v))
                shares = torch.softmax(torch.baddbmm(attention_bias, q, k.transpose(1, 2)), dim=-1)
                mixed = torch.bmm(shares, v).view(rows, heads, width, size)
            mixed = mixed.transpose(1, 2).reshape(rows * width, heads * size)
            x = self._finish(x, mixed, layer)
        last = x.view(rows, width, -1)[:, -1]
        return _norm(last, weights.epsilon) * weights.norm

    def _project(
        self, x: Tensor, layer: LayerWeights, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return rotated queries and keys [B, Q + G, E], and values [B, G, E]."""
        heads, groups, size = self._heads
        normed = _norm(x, self._weights.epsilon)
        qkv = layer.qkv.of(normed).view(-1, heads + 2 * groups, size)
        qk = qkv[:, : heads + groups]
        if layer.head_norms is not None:
            qk = _norm(qk, self._weights.head_epsilon) * layer.head_norms
        rotated = torch.addcmul(qk * cos, qk.roll(size // 2, -1), sin)
        return rotated, qkv[:, heads + groups :]

    def _finish(self, x: Tensor, mixed: Tensor, layer: LayerWeights) -> Tensor:
        """Return the layer's result [B, D] from its input and what attention mixed."""
        x = layer.out.added(x, mixed)
        normed = _norm(x, self._weights.epsilon)
        gate, up = layer.gate_up.of(normed).chunk(2, dim=-1)
        return layer.down.added(x, self._weights.activation(gate).mul_(up))


def _lengthened(cache: Tensor, more: int) -> Tensor:
    """Return a cache [B, G, C, E] with more columns of zeros; each number is written once."""
    rows, groups, columns, size = cache.shape
    longer = cache.new_empty(rows, groups, columns + more, size)
    longer[:, :, :columns] = cache
    longer[:, :, columns:] = 0.0
    return longer


def _norm(x: Tensor, epsilon: float) -> Tensor:
    """Divide by the root mean square over the last dimension."""
    return F.rms_norm(x, x.shape[-1:], None, epsilon)
