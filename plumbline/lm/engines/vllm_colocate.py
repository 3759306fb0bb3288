"""vLLM in the training's own process and on its GPU; it sleeps while the policy learns.

A round goes so: wake up, take over the policy's weights, sample, sleep. Asleep, vLLM keeps its
weights in the machine's memory and nothing but its CUDA context on the GPU.

It sleeps at level 1. Level 2 would drop the weights, which full tuning brings again; but what a
layer holds beside its parameters is then not always restored
(https://github.com/vllm-project/vllm/issues/29341).

Written for the interface of vLLM 0.33, whose source was read, and tried with 0.32 on a CPU.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from plumbline.errors import ConfigError, ModelError
from plumbline.lm.engines.vllm_answers import checked_response
from plumbline.lm.generation import Generation, SamplingConfig
from plumbline.lm.model_folder import ADAPTER
from plumbline.lm.policy import Policy
from plumbline.lm.precision import computes_in_bfloat16
from plumbline.lm.sharding import shares_weights
from plumbline.runs.checkpoints import rng_state, set_rng_state
from plumbline.runs.processes import join, number_of_processes
from plumbline.temporary import TemporaryFolder

VERSIONS = ">=0.32,<0.34"
_KNOWN = (["0", "32"], ["0", "33"])
#: pip's resolver refuses both in one command: vLLM 0.33.0 declares transformers below 5.21.
_INSTALL = f"pip install 'vllm{VERSIONS}' && pip install 'transformers>=5.23,<6'"
_SERVER = "Or set rollouts.mode to server, whose vLLM has an environment of its own"
_WHO = "vLLM in this process"
#: Ranks of adapters for which vLLM reserves memory.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_SEEDS = 2**63


def check_machine() -> None:
    """Raise `ModelError` where vLLM of a known version, or a device for it, is missing."""
    try:
        version = importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version is None or version.split(".")[:2] not in _KNOWN:
        has = "not installed here" if version is None else f"{version} here"
        raise ModelError(
            f"rollouts.mode is colocate, and vLLM is {has}. It takes vLLM {VERSIONS}: {_INSTALL} "
            "(in two steps, since vLLM 0.33.0 declares transformers below 5.21 and Plumbline needs "
            f"5.23; pip will name that). {_SERVER}."
        )
    if not torch.cuda.is_available() and "cpu" not in version.partition("+")[2]:
        raise ModelError(
            f"rollouts.mode is colocate, and this machine has no GPU, which vLLM {version} needs. "
            "Without one, install vLLM's build for CPUs, or set rollouts.engine to native. "
            f"{_SERVER}."
        )


class ColocatedVLLMEngine:
    """Samples with vLLM in this process.

    With several processes that train copies, each has a vLLM of its own for its share of the
    prompts. Log-probabilities come from vLLM's kernels, so they are computed again, and importance
    weights correct for the difference; so do responses that are one round behind.
    """

    exact = False
    remote = False

    def __init__(self, sampling: SamplingConfig, gpu_memory: float, *, eager: bool) -> None:
        check_machine()
        if shares_weights():
            raise ConfigError(
                "rollouts.mode is colocate, and each process holds a share of the weights only. "
                "vLLM would hold a whole copy in each process beside it, which takes the memory "
                "that sharing saves. Set rollouts.mode to server, or start the training with "
                "--launch ddp."
            )
        self._sampling, self._gpu_memory, self._eager = sampling, gpu_memory, eager
        self._temporary = TemporaryFolder()
        self._folder = self._temporary.path
        self._run = f"plumbline-{uuid.uuid4().hex[:12]}"
        self._vllm: Any = None
        self._sleeps = self._asleep = False
        self._refreshes = 0
        self._adapter: Any = None

    def refresh(self, policy: Policy, iteration: int) -> None:
        """Start vLLM or wake it up, and give it the policy's weights: its adapter, or all."""
        if self._vllm is None:
            self._vllm = self._start(policy)
        self._wake(["weights"])
        if hasattr(policy.model, "peft_config"):
            self._give_adapter(policy)
        else:
            self._give_all_weights(policy)
        self._wake(["kv_cache"])
        self._asleep = False
        # What it remembers of prompts was computed with the weights before.
        self._vllm.reset_prefix_cache()

    def sample(
        self, policy: Policy, prompts: Sequence[Sequence[int]], seeds: Sequence[int]
    ) -> list[Generation]:
        """Return one response to each prompt, each with its own seed."""
        if not prompts:
            return []
        self._check_lengths(prompts)
        with _said_by_vllm("did not sample"):
            answers = self._vllm.generate(
                [{"prompt_token_ids": list(prompt)} for prompt in prompts],
                [self._parameters(seed, policy.end_ids) for seed in seeds],
                use_tqdm=False,
                lora_request=self._adapter,
            )
        return [_response(answer.outputs[0], policy.end_ids) for answer in answers]

    def release(self) -> None:
        """Let vLLM sleep until the next refresh, where its device has that."""
        if self._vllm is not None and self._sleeps and not self._asleep:
            self._vllm.sleep(level=1)
            self._asleep = True

    def _parameters(self, seed: int, end_ids: frozenset[int]) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            n=1,
            max_tokens=self._sampling.max_new_tokens,
            temperature=self._sampling.temperature,
            top_p=1.0,
            top_k=0,  # all
            min_p=0.0,
            repetition_penalty=1.0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            seed=seed % _SEEDS,
            stop_token_ids=sorted(end_ids),
            ignore_eos=True,  # else its own tokenizer would say what ends a response, too
            logprobs=0,  # of the token that was drawn
            detokenize=False,
        )

    def _start(self, policy: Policy) -> Any:
        """Return a vLLM in this process that holds the policy's base."""
        # Its engine would otherwise be a process of its own, which shares no memory with training.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        if number_of_processes() > 1:
            join()  # vLLM takes the group that it finds
        with _said_by_vllm(
            "did not start", f"rollouts.gpu_memory is {self._gpu_memory:g} of the GPU's memory"
        ):
            from vllm import LLM
            from vllm.platforms import current_platform

            self._sleeps = bool(current_platform.is_sleep_mode_available())
            _free_memory()
            with _random_streams_kept():
                return LLM(**self._options(policy.model))

    def _options(self, model: Any) -> dict[str, Any]:
        embeddings = model.get_input_embeddings().weight
        half = computes_in_bfloat16(self._sampling.precision, embeddings.device)
        options: dict[str, Any] = {
            "model": str(model.config.name_or_path),
            "revision": getattr(model.config, "_commit_hash", None),
            "dtype": "bfloat16" if half else str(embeddings.dtype).removeprefix("torch."),
            "seed": 0,  # of what has none of its own: nothing
            "gpu_memory_utilization": self._gpu_memory,
            "max_model_len": -1,  # the model's own context, or what the memory holds of it
            "enforce_eager": self._eager,
            "enable_sleep_mode": self._sleeps,
            "logprobs_mode": "processed_logprobs",  # after the temperature
        }
        if hasattr(model, "peft_config"):
            adapter = model.peft_config[ADAPTER]
            options["model"] = str(adapter.base_model_name_or_path)
            options["revision"] = adapter.revision
            options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(adapter)}
        if number_of_processes() > 1:
            options["distributed_executor_backend"] = "external_launcher"
        return options

    def _wake(self, tags: list[str]) -> None:
        if self._asleep:
            _free_memory()
            self._vllm.wake_up(tags=tags)

    def _give_adapter(self, policy: Policy) -> None:
        """Load the adapter under a new name and number, and drop the one before."""
        from vllm.lora.request import LoRARequest

        self._refreshes += 1
        name, engine = f"{self._run}-{self._refreshes}", self._vllm.llm_engine
        policy.model.save_pretrained(
            self._folder / name, selected_adapters=[policy.adapter], save_embedding_layers=False
        )
        before = self._adapter
        self._adapter = LoRARequest(name, self._refreshes, str(self._folder / name))
        with _said_by_vllm("did not load the policy's adapter"):
            if before is not None:
                engine.remove_lora(before.lora_int_id)
            engine.add_lora(self._adapter)
        if before is not None:
            shutil.rmtree(self._folder / before.lora_name, ignore_errors=True)

    def _give_all_weights(self, policy: Policy) -> None:
        """Hand over every weight, under the names that its files on disk have."""
        from transformers.core_model_loading import revert_weight_conversion

        held = {name: weight.detach() for name, weight in policy.model.named_parameters()}
        weights = revert_weight_conversion(policy.model, held)
        with _said_by_vllm("did not take over the policy's weights"):
            self._vllm.collective_rpc(
                "reload_weights", kwargs={"weights_iterator": iter(weights.items())}
            )

    def _check_lengths(self, prompts: Sequence[Sequence[int]]) -> None:
        """Raise `ModelError` where a prompt with its response is longer than what vLLM holds."""
        longest = max(map(len, prompts)) + self._sampling.max_new_tokens
        most = self._vllm.model_config.max_model_len
        if longest > most:
            raise ModelError(
                f"A prompt with sampling.max_new_tokens ({self._sampling.max_new_tokens}) has "
                f"{longest} tokens, and vLLM has memory for {most}. Raise rollouts.gpu_memory "
                f"({self._gpu_memory:g}), or lower sampling.max_new_tokens."
            )


def _response(output: Any, end_ids: frozenset[int]) -> Generation:
    ids = list(output.token_ids)
    logprobs = None
    if output.logprobs is not None:
        logprobs = [
            float(at[drawn].logprob) for drawn, at in zip(ids, output.logprobs, strict=False)
        ]
    if output.finish_reason not in ("stop", "length"):
        raise ModelError(f"{_WHO} broke a response off ({output.finish_reason}).")
    ended = output.finish_reason == "stop"
    return checked_response(_WHO, ids, logprobs, ended=ended, end_ids=end_ids)


def _rank(adapter: Any) -> int:
    """Return the least rank for which vLLM reserves memory and that an adapter fits in."""
    needed = max([adapter.r, *(adapter.rank_pattern or {}).values()])
    for rank in _RANKS:
        if needed <= rank:
            return rank
    raise ConfigError(
        f"tuning.rank is {needed}, and vLLM loads adapters up to {_RANKS[-1]}. Lower it, or set "
        "rollouts.engine to native."
    )


def _free_memory() -> None:
    """Give back what torch keeps of freed memory, so that vLLM can have it."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


@contextmanager
def _random_streams_kept() -> Iterator[None]:
    """Leave the global random streams as they were: vLLM seeds them when it starts."""
    before = rng_state()
    try:
        yield
    finally:
        set_rng_state(before)


@contextmanager
def _said_by_vllm(what: str, beside: str = "") -> Iterator[None]:
    """Raise an error of vLLM's as a `ModelError` that says what could not be done."""
    try:
        yield
    except (ConfigError, ModelError):
        raise
    except Exception as error:
        raise ModelError(
            f"{_WHO} {what}{f' ({beside})' if beside else ''}. It says: "
            f"{str(error).strip()[:300] or type(error).__name__}"
        ) from error
