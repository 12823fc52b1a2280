"""The base of configurations."""

from collections.abc import Callable
from dataclasses import dataclass, field

from lerobot.configs.types import PolicyFeature


@dataclass
class PreTrainedConfig:
    input_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    output_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    device: str | None = None
    push_to_hub: bool = True

    @staticmethod
    def register_subclass(_name: str) -> Callable[[type], type]:
        return lambda kind: kind

    def __post_init__(self) -> None:
        assert self.device == "cpu"
