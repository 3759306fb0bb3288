"""What a config of accelerate asks for: processes, machines, shares of the weights, a format.

Plumbline starts and shards trainings itself, so a config is read for what it asks: a file here, or
the variables of `accelerate launch`. What is not done here is refused, and what a recipe's settings
decide is compared with them (`check_settings`). The few keys that change nothing are listed below.
Configs for 2, 4 and 8 GPUs and for several machines are in `launch_configs`, and are found by their
names alone, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from plumbline.errors import ConfigError, brief

#: Where the configs that come with Plumbline are.
SHIPPED = Path(__file__).parent / "launch_configs"
_KINDS = {"MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "FSDP": "fsdp2", "DEEPSPEED": "zero"}
#: Characters of an error of the YAML reader that are shown.
_LONGEST_REASON = 160
_NOTHING: tuple[object, ...] = (None, {}, [], "")
_OFF = (False, None, "no")
#: Keys of a config with the values that are possible here; None: any value.
_TOP: dict[str, tuple[object, ...] | None] = {
    "compute_environment": ("LOCAL_MACHINE",),
    "distributed_type": tuple(_KINDS),
    "mixed_precision": ("bf16", *_OFF),
    "gpu_ids": ("all", None),
    **dict.fromkeys(
        ("use_cpu", "num_processes", "num_machines", "machine_rank", "main_process_ip",
         "main_process_port", "fsdp_config", "deepspeed_config")
    ),
    **dict.fromkeys(("debug", "downcast_bf16", "enable_cpu_affinity", "fp16"), _OFF),
    **dict.fromkeys(
        ("dynamo_config", "fp8_config", "parallelism_config", "megatron_lm_config",
         "mpirun_config", "command_file", "commands", "tpu_name", "tpu_zone", "tpu_vm",
         "tpu_env"), _NOTHING
    ),
    **dict.fromkeys(("tpu_use_cluster", "tpu_use_sudo"), _OFF),
    # These change nothing: machines meet as Plumbline lets them, and a command is run.
    "rdzv_backend": ("static", "c10d"),
    "same_network": None,
    "main_training_function": None,
}  # fmt: skip
_FSDP: dict[str, tuple[object, ...] | None] = {
    "fsdp_version": (2,),
    "fsdp_auto_wrap_policy": ("TRANSFORMER_BASED_WRAP",),
    "fsdp_reshard_after_forward": (True,),
    "fsdp_offload_params": (False,),
    "fsdp_activation_checkpointing": (False,),
    # These change nothing: checkpoints have one form, models are loaded one after the other in any
    # case, and each decoder layer is a group of weights.
    **dict.fromkeys(
        ("fsdp_state_dict_type", "fsdp_cpu_ram_efficient_loading",
         "fsdp_transformer_layer_cls_to_wrap")
    ),
}  # fmt: skip
_DEEPSPEED: dict[str, tuple[object, ...] | None] = {
    "zero_stage": (2, 3),
    "offload_optimizer_device": ("none", None),
    "offload_param_device": ("none", None),
    "gradient_accumulation_steps": None,
    "gradient_clipping": None,
    # These change nothing: machines meet as Plumbline lets them, each process loads a model and
    # gives up what is not its own, and what a training makes is one whole model.
    **dict.fromkeys(
        ("deepspeed_multinode_launcher", "zero3_init_flag", "zero3_save_16bit_model")
    ),
}  # fmt: skip
_ADVICE = {
    "mixed_precision": "Gradients are not scaled here, as fp16 needs, and there is no fp8",
    "fsdp_activation_checkpointing": "Set activation_checkpointing in the recipe's settings",
    "gpu_ids": "Choose GPUs by CUDA_VISIBLE_DEVICES",
    "dynamo_config": "Layers are compiled where that is faster (PLUMBLINE_COMPILE=0: not at all)",
    "deepspeed_config_file": "Say zero_stage and the like in the config of accelerate itself",
    **dict.fromkeys(
        ("offload_optimizer_device", "offload_param_device"),
        "Take more GPUs, or train adapters (tuning.method: lora)",
    ),
}
#: Settings of a recipe that decide what keys of a config ask for.
_SETTINGS = {
    "gradient_accumulation_steps": "gradient_accumulation",
    "gradient_clipping": "max_grad_norm",
}
#: Variables of `accelerate launch`, the key that each comes from, and what is possible here.
_VARIABLES = {
    "ACCELERATE_DYNAMO_BACKEND": ("dynamo_backend", ("no",)),
    "ACCELERATE_USE_MEGATRON_LM": ("megatron_lm_config", ("false",)),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("parallelism_config", ("false",)),
    "ACCELERATE_DEBUG_MODE": ("debug", ("false",)),
    "ACCELERATE_CPU_AFFINITY": ("enable_cpu_affinity", ("0", "false")),
    "ACCELERATE_MIXED_PRECISION": ("mixed_precision", ("no", "bf16", "none")),
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", ("false",)),
    "FSDP_ACTIVATION_CHECKPOINTING": ("fsdp_activation_checkpointing", ("false",)),
    "FSDP_RESHARD_AFTER_FORWARD": ("fsdp_reshard_after_forward", ("true", "full_shard")),
    "FSDP_AUTO_WRAP_POLICY": ("fsdp_auto_wrap_policy", ("transformer_based_wrap",)),
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": ("offload_optimizer_device", ("none",)),
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": ("offload_param_device", ("none",)),
    "ACCELERATE_DEEPSPEED_CONFIG_FILE": ("deepspeed_config_file", ("none",)),
    "ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES": ("deepspeed_moe_layer_cls_names", ("none",)),
}


class Asked(NamedTuple):
    """What a config asks for."""

    kind: str
    """ddp, fsdp2, zero2 or zero3."""
    processes: int | None = None
    """On all machines together; None where it does not say."""
    settings: Mapping[str, object] = {}
    """What it asks of settings of a recipe, by their names."""
    machines: int = 1
    machine_rank: int = 0
    address: Any = None
    """Of the first machine, as the config has it; None where it does not say."""
    port: int = 29500
    on: str | None = None
    """cpu or gpu; None where it does not say."""


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
        raise ConfigError(f"--launch {file} cannot be read: {_one_line(error)}.") from None
    if not isinstance(values, Mapping):
        raise ConfigError(f"--launch {file} holds no settings of accelerate.")
    _check(file, values, _TOP)
    if "distributed_type" not in values:
        raise ConfigError(f"{file} has no distributed_type. Set it to one of {', '.join(_KINDS)}.")
    distributed = values["distributed_type"]
    kind = _KINDS[distributed]
    section: Mapping[str, Any] = {}
    if kind == "fsdp2":
        section = _section(file, values, "fsdp_config", "fsdp_version")
        _check(file, section, _FSDP)
    elif kind == "zero":
        section = _section(file, values, "deepspeed_config", "zero_stage")
        _check(file, section, _DEEPSPEED)
        kind = f"zero{int(section['zero_stage'])}"  # 3.0 is 3
    for name, of in (("fsdp_config", "FSDP"), ("deepspeed_config", "DEEPSPEED")):
        if distributed != of and values.get(name) not in _NOTHING:
            raise ConfigError(
                f"{file} has a {name}, which has no effect with distributed_type {distributed}. "
                f"Set that to {of}, or leave {name} out."
            )
    on_cpu = distributed == "MULTI_CPU"
    if values.get("use_cpu", on_cpu) is not on_cpu:
        raise ConfigError(
            f"{file}: use_cpu is {brief(values['use_cpu'])} with distributed_type {distributed}. "
            "On a CPU set MULTI_CPU and use_cpu: true."
        )
    machines = _number(file, values, "num_machines", 1, least=1)
    return Asked(
        kind,
        _number(file, values, "num_processes", None, least=2),
        _asked_of_settings(values.get("mixed_precision"), section),
        machines or 1,
        _number(file, values, "machine_rank", 0, least=0) or 0,
        values.get("main_process_ip"),
        _number(file, values, "main_process_port", 29500, least=1, most=65535) or 29500,
        "cpu" if on_cpu else "gpu",
    )


def asked_by_accelerate(variables: Mapping[str, str]) -> Asked:
    """Return what the variables of `accelerate launch` ask for; raise for what is not done here."""

    def is_set(name: str) -> bool:
        return variables.get(name, "false").lower() in ("true", "1")

    for name, (key, possible) in _VARIABLES.items():
        value = variables.get(name, possible[0])
        if value.lower() not in possible:
            advice = f" {_ADVICE[key]}." if key in _ADVICE else ""
            raise ConfigError(
                f"The accelerate config asks for {key} {brief(value)}, which is not possible here; "
                f"{' or '.join(possible)} is.{advice}"
            )
    kind = "ddp"
    if is_set("ACCELERATE_USE_DEEPSPEED"):
        stage = variables.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
        if stage not in ("2", "3"):
            raise ConfigError(
                f"The accelerate config asks for DeepSpeed with ZeRO stage {stage or 'unknown'}, "
                "which is not possible; stages 2 and 3 are, and --launch ddp."
            )
        kind = f"zero{stage}"
    elif is_set("ACCELERATE_USE_FSDP"):
        if variables.get("FSDP_VERSION") != "2":
            raise ConfigError(
                "The accelerate config asks for FSDP 1, which is not possible. Set fsdp_version: 2."
            )
        kind = "fsdp2"
    section = {}
    for key, names in (
        ("gradient_accumulation_steps", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"),
        ("gradient_clipping", "ACCELERATE_GRADIENT_CLIPPING"),
    ):
        value = variables.get(names, "auto")
        # accelerate sets 1 where a config says nothing.
        if kind.startswith("zero") and value not in ("auto", "none", "1"):
            section[key] = value
    precision = variables.get("ACCELERATE_MIXED_PRECISION")  # "no" also where none is said
    return Asked(
        kind, settings=_asked_of_settings("bf16" if precision == "bf16" else None, section)
    )


def _asked_of_settings(precision: Any, section: Mapping[str, Any]) -> dict[str, object]:
    """Return what is asked of settings of a recipe, by their names."""
    wanted: dict[str, object] = {}
    if precision is not None:
        wanted["mixed_precision"] = "bf16" if precision == "bf16" else "no"
    for key, name in _SETTINGS.items():
        if section.get(key, "auto") not in ("auto", None):
            try:
                wanted[name] = float(section[key])
            except (TypeError, ValueError):
                raise ConfigError(
                    f"The accelerate config asks for {key} {brief(section[key])}, which is not a "
                    "number. Set one, or leave it out."
                ) from None
    return wanted


def check_settings(wanted: Mapping[str, object], settings: Iterable[tuple[str, Any]]) -> None:
    """Raise `ConfigError` where a recipe's settings decide something else than a config asks.

    ``settings``: those of trainings by their whole names; ``bf16`` and ``precision`` with whether
    they mean bfloat16 here.
    """
    for name, value in settings:
        key = name.rpartition(".")[2]
        if key in ("bf16", "precision"):
            precision = wanted.get("mixed_precision")
            if precision is not None and (precision == "bf16") != value:
                means = "bfloat16" if value else "the number format of the weights"
                raise ConfigError(
                    f"The accelerate config asks for mixed_precision {precision}, and {name} means "
                    f"{means} on this machine. Change one of the two."
                )
        elif key in wanted and value != wanted[key]:
            origin = next(of for of, setting in _SETTINGS.items() if setting == key)
            raise ConfigError(
                f"The accelerate config asks for {origin} {wanted[key]:g}, and {name} is {value}. "
                "Change one of the two."
            )


def _one_line(error: Exception) -> str:
    """Return what an error says, on one line and cut where it is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _number(
    file: Path,
    values: Mapping[str, Any],
    key: str,
    default: int | None,
    *,
    least: int,
    most: int | None = None,
) -> int | None:
    value = values.get(key)
    if value is None:
        return default
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or value < least or (most is not None and value > most):
        limits = f"{least} or more" if most is None else f"a number from {least} to {most}"
        raise ConfigError(f"{file}: {key} is {brief(value)}. Set it to {limits}.")
    return int(value)


def is_host(address: object) -> bool:
    """Return whether this is a name of a machine or an IP address, without a port or a scheme."""
    if not isinstance(address, str):
        return False
    with suppress(ValueError):
        ip_address(address)
        return True
    return re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?", address) is not None


def _section(file: Path, values: Mapping[str, Any], name: str, needed: str) -> Mapping[str, Any]:
    section = values.get(name)
    if not isinstance(section, Mapping) or needed not in section:
        in_file = isinstance(section, Mapping) and "deepspeed_config_file" in section
        advice = f" {_ADVICE['deepspeed_config_file']}." if in_file else ""
        raise ConfigError(f"{file} has no {name} with {needed}.{advice}")
    return section


def _check(
    file: Path, values: Mapping[str, Any], known: Mapping[str, tuple[object, ...] | None]
) -> None:
    """Raise `ConfigError` for a key that is not known, or a value that is not done here."""
    for key, value in values.items():
        advice = f". {_ADVICE[key]}" if key in _ADVICE else ""
        if key not in known:
            raise ConfigError(f"{file}: {key} is not possible here{advice or '. Leave it out'}.")
        allowed = known[key]
        if allowed is not None and value not in allowed:
            named = [x for x in allowed if x not in _NOTHING]  # what stands for leaving it out
            possible = " or ".join(str(x).lower() if isinstance(x, bool) else str(x) for x in named)
            raise ConfigError(
                f"{file}: {key} is {brief(value)}; what is possible is "
                f"{possible or 'to leave it out'}{advice}."
            )
