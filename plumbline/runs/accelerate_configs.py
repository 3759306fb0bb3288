"""What a config file of accelerate asks for: how many processes, and how they share the weights.

Plumbline starts and shards trainings itself, so a config is read for what it asks. What is not done
here is refused, and what a recipe's settings decide is refused where it is set to something else.
Configs for 2, 4 and 8 GPUs are in `launch_configs`, and are found by their names alone, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from plumbline.errors import ConfigError, brief

#: Where the configs that come with Plumbline are.
SHIPPED = Path(__file__).parent / "launch_configs"
_KINDS = {"MULTI_GPU": "ddp", "FSDP": "fsdp2", "DEEPSPEED": "zero"}
#: Keys of a config with the values that are possible here; None: it changes nothing.
_TOP: dict[str, tuple[object, ...] | None] = {
    "compute_environment": ("LOCAL_MACHINE",),
    "distributed_type": tuple(_KINDS),
    "num_processes": None,
    "num_machines": (1,),
    "machine_rank": (0,),
    "use_cpu": (False,),
    "gpu_ids": ("all", None),
    "mixed_precision": ("bf16",),
    "dynamo_config": ({}, None),
    "fsdp_config": None,
    "deepspeed_config": None,
    **dict.fromkeys(
        ("debug", "downcast_bf16", "enable_cpu_affinity", "main_training_function", "same_network",
         "rdzv_backend", "main_process_port", "tpu_env", "tpu_use_cluster", "tpu_use_sudo")
    ),
}  # fmt: skip
_FSDP: dict[str, tuple[object, ...] | None] = {
    "fsdp_version": (2,),
    "fsdp_auto_wrap_policy": ("TRANSFORMER_BASED_WRAP",),
    "fsdp_reshard_after_forward": (True,),
    "fsdp_offload_params": (False,),
    "fsdp_activation_checkpointing": (False,),
    **dict.fromkeys(
        ("fsdp_state_dict_type", "fsdp_cpu_ram_efficient_loading",
         "fsdp_transformer_layer_cls_to_wrap")
    ),
}  # fmt: skip
_DEEPSPEED: dict[str, tuple[object, ...] | None] = {
    "zero_stage": (3,),
    "offload_optimizer_device": ("none", None),
    "offload_param_device": ("none", None),
    "gradient_accumulation_steps": (1, "auto"),
    "gradient_clipping": (1.0, "auto"),
    **dict.fromkeys(
        ("deepspeed_multinode_launcher", "zero3_init_flag", "zero3_save_16bit_model")
    ),
}  # fmt: skip
_ADVICE = {
    "mixed_precision": "A recipe's settings decide that (training.bf16). Leave it out",
    "gradient_accumulation_steps": "Set training.gradient_accumulation in the recipe's settings",
    "gradient_clipping": "Set training.max_grad_norm in the recipe's settings",
    "fsdp_activation_checkpointing": "Set activation_checkpointing in the recipe's settings",
    "num_machines": "Trainings run on one machine",
    "use_cpu": "On a CPU use --launch ddp --processes N",
}


class Asked(NamedTuple):
    """What a config asks for."""

    kind: str
    """ddp, fsdp2 or zero3."""
    processes: int | None
    """None where it does not say."""


def read_config(file: Path) -> Asked:
    """Return what a config file asks for; raise `ConfigError` for what is not done here."""
    if not file.exists() and file.parent == Path() and (SHIPPED / file.name).exists():
        file = SHIPPED / file.name
    try:
        values = YAML(typ="safe").load(file)  # JSON is YAML, too
    except FileNotFoundError:
        names = ", ".join(sorted(path.name for path in SHIPPED.glob("*.yaml")))
        raise ConfigError(
            f"--launch {file}: there is no such file, and no config of that name comes with "
            f"Plumbline ({names})."
        ) from None
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--launch {file} cannot be read: {brief(str(error))}.") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"--launch {file} holds no settings of accelerate.")
    _check(file, values, _TOP)
    kind = _KINDS[values.get("distributed_type", "")] if "distributed_type" in values else ""
    if kind == "fsdp2":
        _check(file, _section(file, values, "fsdp_config", "fsdp_version"), _FSDP)
    elif kind == "zero":
        section = _section(file, values, "deepspeed_config", "zero_stage")
        _check(file, section, _DEEPSPEED)
        kind = f"zero{section['zero_stage']}"
    elif kind == "":
        raise ConfigError(f"{file} has no distributed_type. Set it to one of {', '.join(_KINDS)}.")
    processes = values.get("num_processes")
    if processes is not None and (not isinstance(processes, int) or processes < 2):
        raise ConfigError(f"{file}: num_processes is {brief(processes)}. Set it to 2 or more.")
    return Asked(kind, processes)


def _section(file: Path, values: Mapping[str, Any], name: str, needed: str) -> Mapping[str, Any]:
    section = values.get(name)
    if not isinstance(section, Mapping) or needed not in section:
        raise ConfigError(f"{file} has no {name} with {needed}.")
    return section


def _check(
    file: Path, values: Mapping[str, Any], known: Mapping[str, tuple[object, ...] | None]
) -> None:
    """Raise `ConfigError` for a key that is not known, or a value that is not done here."""
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{file}: {key} is not possible here. Leave it out.")
        allowed = known[key]
        if allowed is not None and value not in allowed:
            possible = " or ".join(
                str(x).lower() if isinstance(x, bool) else str(x) for x in allowed
            )
            advice = f". {_ADVICE[key]}" if key in _ADVICE else ""
            raise ConfigError(
                f"{file}: {key} is {brief(value)}; what is possible is {possible}{advice}."
            )
