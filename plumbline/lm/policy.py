"""A policy: a language model in a role, with its tokenizer.

Several roles may share one frozen base, each as an adapter: the policy that trains, the reference
it must not leave. A `Policy` knows which adapter is its own and switches to it while it works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plumbline.data.records import Message
from plumbline.lm.adapters import using_adapter
from plumbline.lm.batches import Batch, collate
from plumbline.lm.chat import (
    ConversationRefusedError,
    decode_response,
    encode_prompt,
    end_token_ids,
)
from plumbline.lm.context import context_length
from plumbline.lm.generation import Generation, SamplingConfig, generate
from plumbline.lm.load import load_causal_lm
from plumbline.lm.logprobs import TokenLogprobs, in_parts, response_logprobs
from plumbline.lm.model_folder import ADAPTER
from plumbline.lm.precision import computes_in_bfloat16
from plumbline.lm.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
        generation = getattr(model, "generation_config", None)
        self.end_ids = end_token_ids(tokenizer, getattr(generation, "eos_token_id", None))

    @classmethod
    def load(cls, folder: Path, *, quantize: bool = False) -> Policy:
        """Load a policy from a model artefact's folder, for use and not for training."""
        model = load_causal_lm(folder, quantize=quantize)
        model.eval()
        return cls(model, load_tokenizer(folder))

    def encode(self, prompt: Sequence[Message]) -> list[int]:
        """Return the ids of a prompt."""
        return encode_prompt(self.tokenizer, prompt)

    def problem_with(self, prompt: Sequence[Message], new_tokens: int) -> str | None:
        """Return why no response to a prompt can be sampled, or None.

        The reason follows the prompt's name: the chat template refuses the prompt, or leaves no
        room for ``new_tokens`` in the model's context.
        """
        try:
            length = len(self.encode(prompt))
        except ConversationRefusedError as error:
            return str(error)
        context = context_length(self.model.config)
        if context is None or length + new_tokens <= context:
            return None
        return (
            f"has no room in the model's own context ({context} tokens) beside the response "
            f"(max_new_tokens: {new_tokens})"
        )

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

    def samples_in_float32(self, config: SamplingConfig) -> bool:
        """Return whether sampling computes in float32, as far as its settings decide."""
        weights = self.model.get_input_embeddings().weight
        return weights.dtype == torch.float32 and not computes_in_bfloat16(
            config.precision, weights.device
        )

    def logprobs_of(
        self,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        temperature: float = 1.0,
        batch_size: int = 32,
    ) -> Tensor:
        """Return the log-probability of each response token, [B, R]; 0 at padding.

        Of prompts and responses as ids, ``batch_size`` rows at a time.
        """
        batch = collate(prompts, responses, self.pad_id)
        return in_parts(lambda part: self.logprobs(part, temperature).logprobs, batch, batch_size)

    def logprobs(
        self, batch: Batch, temperature: float = 1.0, *, entropy_gradient: bool = False
    ) -> TokenLogprobs:
        """Return log-probabilities and entropies of the responses in a batch."""
        return response_logprobs(
            self.model,
            batch,
            temperature,
            entropy_gradient=entropy_gradient,
            role=self.adapter,
            checkpointing=self.checkpointing,
        )
