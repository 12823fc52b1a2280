"""The matrix products of a computation, by themselves: no network of these shapes is faster than they are.

A recorder notes every product that torch carries out, with its very tensors, so that alone they run with the same
shapes, layouts and dtypes, and read weights from as far away in memory as the network does.
"""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
PRODUCTS = {aten.linear.default, aten.matmul.default, aten.mm.default, aten.addmm.default, aten.bmm.default}
ATTENTION = aten.scaled_dot_product_attention.default

Product = tuple[Callable[..., Tensor], tuple[Any, ...]]


class MatmulRecorder(TorchDispatchMode):
    """Collects the products of what runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note a product, and carry it out."""
        if func in PRODUCTS:
            self.products.append((func, args))
        if func is ATTENTION:
            self.products += attention_products(*args[:3])
        return func(*args, **(kwargs or {}))


def attention_products(query: Tensor, key: Tensor, value: Tensor) -> list[Product]:
    """The two products of attention: [b n q d] with keys and values [b m s d], in groups of n / m query heads."""
    queries = rearrange(query, "b (m g) q d -> (b m) (g q) d", m=key.shape[1]).contiguous()
    keys, values = (rearrange(part, "b m s d -> (b m) s d") for part in (key, value))
    scores = queries @ keys.transpose(1, 2)
    return [(torch.bmm, (queries, keys.transpose(1, 2))), (torch.bmm, (scores, values))]


def matmuls_of(computation: Callable[[], object]) -> list[Product]:
    """The products that a computation consists of, from its second time on."""
    computation()
    with MatmulRecorder() as recorder:
        computation()
    assert recorder.products, "this torch carries out its products under other names"
    return recorder.products


def carry_out(products: list[Product]) -> None:
    """Nothing but the products."""
    for product, arguments in products:
        product(*arguments)
