"""A module `vllm` as far as the training's own process uses it, for tests: no vLLM is here.

It samples from a tiny model with the adapter that it read from disk, or with the weights that it
was given. What it refuses and forgets is as in vLLM 0.33: it answers nothing asleep, remembers
prompts by the adapter's name, and seeds the global random streams when it starts.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from plumbline.lm.generation import SamplingConfig, generate

_TAGS = frozenset({"weights", "kv_cache"})


@dataclass
class SamplingParams:
    """The fields that are set; another one is an error."""

    n: int
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    stop_token_ids: list[int]
    ignore_eos: bool
    logprobs: int
    detokenize: bool


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class Behavior:
    """How the vLLM of a test behaves, and what it was asked for."""

    sleeps: bool = True
    context: int = 256
    gives_logprobs: bool = True
    free_memory: float = 1.0
    events: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    llm: Any = None


def install(monkeypatch, folder: Path, version: str = "0.33.0+cpu", **how: Any) -> Behavior:
    """Let `import vllm` find the stand-in until the test ends."""
    behavior = Behavior(**how)
    installed = folder / f"vllm-{version}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    monkeypatch.syspath_prepend(folder)

    class LLM(_LLM):
        def __init__(self, **options: Any) -> None:
            super().__init__(behavior, options)

    platform = SimpleNamespace(is_sleep_mode_available=lambda: behavior.sleeps)
    contents: dict[str, dict[str, Any]] = {
        "vllm": {"LLM": LLM, "SamplingParams": SamplingParams},
        "vllm.platforms": {"current_platform": platform},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
    }
    for name, members in contents.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        for member, value in members.items():
            setattr(module, member, value)
        monkeypatch.setitem(sys.modules, name, module)
    return behavior


class _LLM:
    def __init__(self, behavior: Behavior, options: dict[str, Any]) -> None:
        from transformers import AutoModelForCausalLM

        if options["gpu_memory_utilization"] > behavior.free_memory:
            raise ValueError("Free memory on device cuda:0 on startup is less than desired")
        if options["enable_sleep_mode"] and not behavior.sleeps:
            raise ValueError("Sleep mode is not supported on current platform.")
        torch.manual_seed(options["seed"])
        behavior.options, behavior.llm = options, self
        self._behavior = behavior
        self._asleep: set[str] = set()
        dtype = getattr(torch, options["dtype"])
        self._base = AutoModelForCausalLM.from_pretrained(options["model"], dtype=dtype).eval()
        self.adapters: dict[int, tuple[str, Any]] = {}
        self._prefixes: dict[Any, Any] = {}
        self.llm_engine = self
        self.model_config = SimpleNamespace(max_model_len=behavior.context)

    def add_lora(self, request: LoRARequest) -> bool:
        from peft import PeftModel

        if len(self.adapters) == self._behavior.options["max_loras"]:
            raise ValueError("no slot is free")
        self._awake("weights")
        with torch.random.fork_rng():  # PEFT draws what it then reads
            model = PeftModel.from_pretrained(copy.deepcopy(self._base), request.lora_path).eval()
        if model.peft_config["default"].r > self._behavior.options["max_lora_rank"]:
            raise ValueError("LoRA rank is greater than max_lora_rank")
        self.adapters[request.lora_int_id] = (request.lora_name, model)
        self._behavior.events.append("adapter")
        return True

    def remove_lora(self, number: int) -> bool:
        return self.adapters.pop(number, None) is not None

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> list[None]:
        assert method == "reload_weights"
        self._awake("weights")
        self._base = copy.deepcopy(self._base)  # what it remembers of prompts stays as it was
        given = dict(kwargs["weights_iterator"])
        unknown = self._base.load_state_dict(given, strict=False).unexpected_keys
        assert not unknown
        missing = {name for name, _ in self._base.named_parameters()} - set(given)
        assert not missing
        self._behavior.events.append("weights")
        return [None]

    def reset_prefix_cache(self) -> bool:
        self._prefixes.clear()
        return True

    def sleep(self, level: int) -> None:
        assert self._behavior.options["enable_sleep_mode"]
        self._prefixes.clear()
        self._asleep = set(_TAGS)
        self._behavior.events.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> bool:
        assert self._asleep >= set(tags)
        self._asleep -= set(tags)
        self._behavior.events.append(f"wake {'+'.join(tags)}")
        return not self._asleep

    def generate(self, prompts, sampling_params, *, use_tqdm, lora_request) -> list[Any]:
        self._awake(*_TAGS)
        assert not use_tqdm
        self._behavior.events.append("sample")
        return [
            self._answer(prompt["prompt_token_ids"], parameters, lora_request)
            for prompt, parameters in zip(prompts, sampling_params, strict=True)
        ]

    def _answer(self, prompt: list[int], asked: SamplingParams, request: LoRARequest | None) -> Any:
        if request is None:
            name, model = None, self._base
        else:
            name, model = self.adapters[request.lora_int_id]
            assert name == request.lora_name
        model = self._prefixes.setdefault((name, tuple(prompt)), model)
        config = SamplingConfig(temperature=asked.temperature, max_new_tokens=asked.max_tokens)
        ends = frozenset(asked.stop_token_ids)
        (drawn,) = generate(model, [prompt], [asked.seed], config, end_ids=ends, pad_id=0)
        logprobs = [
            {0: SimpleNamespace(logprob=-99.0), token: SimpleNamespace(logprob=logprob)}
            for token, logprob in zip(drawn.ids, drawn.logprobs, strict=True)
        ]
        output = SimpleNamespace(
            token_ids=drawn.ids,
            logprobs=logprobs if self._behavior.gives_logprobs else None,
            finish_reason="stop" if drawn.finished else "length",
        )
        return SimpleNamespace(outputs=[output])

    def _awake(self, *tags: str) -> None:
        if self._asleep & set(tags):
            raise RuntimeError(f"asleep: {sorted(self._asleep)}")
