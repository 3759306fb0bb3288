"""Bottleneck adapters (Houlsby et al., 2019) as a tuner of PEFT's, which has none of its own.

Behind a layer's output stands a small network with a residual connection: y + U act(D y), where D
[size, out] is random and U [out, size] starts at 0, so that a new adapter changes nothing. Behind
the feed-forward part alone it is the adapter of Pfeiffer et al. (2021); behind attention, too, that
of Houlsby et al.

Importing this module registers the tuner, after which `PeftModel.from_pretrained` opens such an
adapter as any other. It is not linear in its input, so it cannot be merged into the base.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType, register_peft_method
from torch import Tensor, nn
from torch.nn import functional as F

NAME = "bottleneck"


def _add_peft_type() -> None:
    """Add this kind to PEFT's enumeration of kinds, which its registry asks for."""
    value = NAME.upper()
    if value in PeftType.__members__:
        return
    member = str.__new__(PeftType, value)
    member._name_ = member._value_ = value
    PeftType._member_names_.append(value)
    PeftType._member_map_[value] = member
    PeftType._value2member_map_[value] = member


_add_peft_type()


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]
    """PEFT's settings of a bottleneck adapter."""

    size: int = field(default=16, metadata={"help": "Width of the bottleneck."})
    target_modules: list[str] | set[str] | str | None = field(
        default=None, metadata={"help": "Names of the linear layers behind which it stands."}
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names of layers that get none."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Numbers of the decoder's layers that get one."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "The name of the list of layers in the model."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Other modules that train and are saved, such as a head."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType[NAME.upper()]
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)


class BottleneckLayer(BaseTunerLayer):  # type: ignore[misc]
    """What holds the weights of the adapters on one linear layer."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: nn.Module) -> None:
        self.base_layer = base_layer
        self.bottleneck_down, self.bottleneck_up = nn.ModuleDict(), nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        layer = self.get_base_layer()
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"A bottleneck adapter stands behind linear layers, not {type(layer)}.")
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter that changes nothing yet."""
        down = nn.Linear(self.out_features, config.size)
        up = nn.Linear(config.size, self.out_features)
        nn.init.kaiming_uniform_(down.weight, a=5**0.5)
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)


class BottleneckLinear(nn.Module, BottleneckLayer):
    """A linear layer with bottleneck adapters behind it."""

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        BottleneckLayer.__init__(self, base_layer)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the layer's output [..., out] with what the active adapters add."""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        active: Any = self.active_adapters
        for name in active:
            if name in self.bottleneck_down:
                down: nn.Module = self.bottleneck_down[name]
                up: nn.Module = self.bottleneck_up[name]
                dtype = next(down.parameters()).dtype
                result = result + up(F.gelu(down(result.to(dtype)))).to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: see this module."""
        raise ValueError("A bottleneck adapter is not linear, so no weight of the base can hold it")

    def unmerge(self) -> None:
        """Do nothing: it is never merged."""


class BottleneckModel(BaseTuner):  # type: ignore[misc]
    """A model with bottleneck adapters."""

    prefix = f"{NAME}_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        layer = BottleneckLinear(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    @staticmethod
    def _prepare_adapter_config(peft_config: Any, model_config: Any) -> Any:
        return peft_config


if PeftType[NAME.upper()] not in PEFT_TYPE_TO_TUNER_MAPPING:
    register_peft_method(name=NAME, config_cls=BottleneckConfig, model_cls=BottleneckModel)
