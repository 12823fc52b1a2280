"""Low-rank adapters through peft: put in, and folded back into a plain network.

An adapter adds `alpha / rank · B A dropout(x)` to what a frozen matrix makes of x. B begins at zero, so nothing changes
at first. Adapters stay float32 and compute in the dtype of x, as every matrix here does (`model/layers.py`).
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from molmoact2.model.config import ModelConfig
from molmoact2.model.layers import Linear
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.tokens.reading import require

ADAPTER = "default"
BASE, DOWN, UP = ".base_layer.", f".lora_A.{ADAPTER}.", f".lora_B.{ADAPTER}."
"""What peft puts into the names of an adapted matrix and of the two matrices of its adapter."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Size of the adapters (training.md F.6)."""

    rank: int
    alpha: int
    dropout: float

    @property
    def scale(self) -> float:
        """Factor on an adapter's output."""
        return self.alpha / self.rank


def inject(model: MolmoAct2, targets: Sequence[str], lora: LoraConfig, *, seed: int) -> None:
    """Put an adapter beside each of the named matrices, in place; without names nothing happens and peft is not needed.

    The dropout inside draws from torch's global generator.

    Raises:
        ValueError: there are adapters already, or peft is not installed.
    """
    require(not adapters(model), "This network has adapters already. Fold them in with merged(...) first.")
    if not targets:
        return
    peft = import_peft()
    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(targets),
        init_lora_weights="gaussian", bias="none",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(
            settings, model, adapter_name=ADAPTER, low_cpu_mem_usage=model.device.type == "meta"
        )
    for name in targets:
        layer: Any = model.get_submodule(name)
        layer.cast_input_dtype_enabled = False
        for matrices in (layer.lora_A, layer.lora_B):
            matrices[ADAPTER] = in_dtype_of_input(matrices[ADAPTER])


def import_peft() -> ModuleType:
    """The library; ValueError where it is not installed."""
    try:
        return importlib.import_module("peft")
    except ModuleNotFoundError as error:
        raise ValueError('Adapters need peft. Install it with: pip install "molmoact2[train]"') from error


def in_dtype_of_input(matrix: nn.Module) -> Linear:
    """The same float32 matrix, computing in the dtype of what it is given."""
    weight = matrix.get_parameter("weight").detach()
    with torch.device("meta"):
        layer = Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.float())
    return layer


def adapters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices of all adapters by name; none in a plain network."""
    return {name: parameter for name, parameter in model.named_parameters() if DOWN in name or UP in name}


@torch.no_grad()
def fold(tensors: Mapping[str, Tensor], lora: LoraConfig) -> dict[str, Tensor]:
    """The parameters of a plain network from those of an adapted one; also for averages of them, if whole, not sharded.

    Adapted matrices come out in float32, and the product is added in float32, so that nothing of it is rounded away.
    Other tensors are passed on as they are.
    """
    plain = {name.replace(BASE, "."): tensor for name, tensor in tensors.items() if DOWN not in name and UP not in name}
    for name, up in tensors.items():
        if UP in name:
            plain_name, down = name.replace(UP, "."), tensors[name.replace(UP, DOWN)]
            plain[plain_name] = plain[plain_name].float() + lora.scale * (up.float() @ down.float())
    return plain


def plain_model(config: ModelConfig, tensors: Mapping[str, Tensor]) -> MolmoAct2:
    """A network for use as it is, around the given parameters, which are not copied."""
    with torch.device("meta"):
        model = MolmoAct2(config)
    frozen = {name: nn.Parameter(tensor.detach(), requires_grad=False) for name, tensor in tensors.items()}
    model.load_state_dict(frozen, strict=False, assign=True)
    if config.text_config.tie_word_embeddings:
        model.lm_head.weight = model.text.embedding
    missing = [name for name, parameter in model.named_parameters() if parameter.device.type == "meta"]
    require(not missing, f"{len(missing)} parameters of the network were not given, such as {missing[:1]}.")
    return model.eval().requires_grad_(False)


def merged(model: MolmoAct2, lora: LoraConfig) -> MolmoAct2:
    """The network with its adapters folded in: what `save_model` writes and `load_policy` reads.

    Tensors without an adapter are shared with `model`; the others are new.
    """
    return plain_model(model.config, fold(dict(model.named_parameters()), lora))
