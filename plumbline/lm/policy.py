"""A policy: a language model in a role, with its tokenizer.

Several roles may share one frozen base, each as an adapter: the policy that trains, the reference
it must not leave. A `Policy` knows which adapter is its own and switches to it while it works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.data.records import Message
from plumbline.lm.adapters import using_adapter
from plumbline.lm.chat import decode_response, encode_prompt
from plumbline.lm.generation import Generation, SamplingConfig, generate
from plumbline.lm.load import load_causal_lm
from plumbline.lm.logprobs import TokenLogprobs, response_logprobs
from plumbline.lm.model_folder import ADAPTER
from plumbline.lm.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from plumbline.lm.batches import Batch


class Policy:
    """A language model with its tokenizer, in the role of one adapter (or of none)."""

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, adapter: str | None = ADAPTER
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.adapter = adapter
        self.checkpointing = False
        """Whether a backward pass computes activations again, where packed passes can."""
        self.pad_id = int(tokenizer.pad_token_id)
        self.end_ids = _end_ids(model, tokenizer)

    @classmethod
    def load(cls, folder: Path, *, quantize: bool = False) -> Policy:
        """Load a policy from a model artefact's folder, for use and not for training."""
        model = load_causal_lm(folder, quantize=quantize)
        model.eval()
        return cls(model, load_tokenizer(folder))

    def encode(self, prompt: Sequence[Message]) -> list[int]:
        """Return the ids of a prompt."""
        return encode_prompt(self.tokenizer, prompt)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a response."""
        return decode_response(self.tokenizer, ids, self.end_ids)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        config: SamplingConfig,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Generation]:
        """Sample one response to each prompt (as ids), each from the stream of its own seed."""
        with using_adapter(self.model, self.adapter):
            return generate(
                self.model,
                prompts,
                seeds,
                config,
                end_ids=self.end_ids,
                pad_id=self.pad_id,
                on_progress=on_progress,
            )

    def logprobs(
        self, batch: Batch, temperature: float = 1.0, *, entropy_gradient: bool = False
    ) -> TokenLogprobs:
        """Return what the policy says of the responses in a batch."""
        return response_logprobs(
            self.model,
            batch,
            temperature,
            entropy_gradient=entropy_gradient,
            role=self.adapter,
            checkpointing=self.checkpointing,
        )


def _end_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return every id that ends a response; some models have more than one."""
    generation = getattr(model, "generation_config", None)
    more = getattr(generation, "eos_token_id", None)
    more = [more] if isinstance(more, int) else list(more or ())
    return frozenset([int(tokenizer.eos_token_id), *more])
