"""transformers' continuous batching: rows enter and leave the batch as they start and end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from plumbline.errors import ModelError
from plumbline.lm.adapters import using_adapter
from plumbline.lm.generation import Generation, SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.seeds import derive

#: On a CPU the cache has a size of its own; on a GPU it takes what is free.
_CPU_PAGE = 64


def check_machine() -> None:
    """Raise `ModelError` on a GPU."""
    if torch.cuda.is_available():
        raise ModelError(
            "rollouts.engine is continuous, and this machine has a GPU, where transformers' "
            "continuous batching failed with our models and was not tried again. Set "
            "rollouts.engine to native, which decodes with CUDA graphs there."
        )


class ContinuousEngine:
    """Samples with `generate_batch`, on the policy's own weights in this process.

    What differs from our own loop:

    - There is one stream of random numbers for a whole call, and which row draws when is decided
      by the scheduler's thread. A run that is repeated is therefore another draw from the same
      policy, and a run that was killed resumes soundly but not with the same bytes.
    - Attention is computed page by page, so log-probabilities differ from training's by rounding.
      They are computed again by default, and the difference is corrected for.
    - They are those after the temperature, and would be those after top-k and top-p: the config
      refuses these two, since no policy gradient belongs to a filtered distribution.
    """

    exact = False
    remote = False

    def __init__(self, sampling: SamplingConfig) -> None:
        check_machine()
        self._sampling = sampling

    def refresh(self, policy: Policy, iteration: int) -> None:
        """Do nothing: the weights are the policy's own."""

    def release(self) -> None:
        """Do nothing: what it needs is freed after each call."""

    def sample(
        self, policy: Policy, prompts: Sequence[Sequence[int]], seeds: Sequence[int]
    ) -> list[Generation]:
        """Return one response to each prompt. The seeds only choose the stream of the call."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        model: Any = policy.model
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        generation = GenerationConfig(
            do_sample=True,
            temperature=self._sampling.temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self._sampling.max_new_tokens,
            eos_token_id=sorted(policy.end_ids),
            pad_token_id=policy.pad_id,
        )
        batching = ContinuousBatchingConfig(
            return_logprobs=True,
            seed=derive(0, "continuous", *seeds) % 2**32,
            auto_switch_to_flash=False,
            **self._cpu_cache(prompts, whole.device),
        )
        was_training = model.training
        # The seed goes to torch's own generators, which nothing else shall notice.
        with using_adapter(model, policy.adapter), torch.random.fork_rng():
            outputs = whole.generate_batch(
                [list(prompt) for prompt in prompts],
                generation_config=generation,
                continuous_batching_config=batching,
                warmup=False,
            )
        model.train(was_training)
        return self._generations(list(outputs.values()), len(prompts), policy.end_ids)

    def _cpu_cache(
        self, prompts: Sequence[Sequence[int]], device: torch.device
    ) -> dict[str, int | bool]:
        if device.type != "cpu":
            return {}
        longest = max(map(len, prompts)) + self._sampling.max_new_tokens
        rows = min(len(prompts), self._sampling.batch_size)
        return {
            "page_size": _CPU_PAGE,
            "num_blocks": rows * (-(-longest // _CPU_PAGE) + 1),
            "max_batch_tokens": max(sum(map(len, prompts)), rows),
            "use_cuda_graph": False,
            "use_async_batching": False,
        }

    @staticmethod
    def _generations(outputs: list[Any], count: int, end_ids: frozenset[int]) -> list[Generation]:
        failed = [output.error for output in outputs if output.error is not None]
        if failed or len(outputs) != count:
            raise ModelError(
                f"Continuous batching answered {len(outputs) - len(failed)} of {count} prompts"
                f"{': ' + str(failed[0]) if failed else ''}. If memory ran out, lower batch_size "
                "(on a CPU, sampling.batch_size), or take rollouts.engine: native."
            )
        return [
            Generation(
                list(output.generated_tokens),
                list(output.logprobs),
                bool(output.generated_tokens) and output.generated_tokens[-1] in end_ids,
            )
            for output in outputs
        ]
