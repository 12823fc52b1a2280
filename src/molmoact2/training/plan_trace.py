"""What one pass of training keeps for its backward pass, and how much it computes, from shapes alone.

The real network runs the real step on torch's "meta" device, where tensors have shapes and no memory. What autograd
saves is written down, once for each storage; so are the products of matrices. Nothing here has to be kept in step with
the network, except for attention, whose kernels do not say on that device what they keep:

| kernel        | keeps                                                                     |
|---------------|---------------------------------------------------------------------------|
| fused         | queries, keys, values, result, mask, and one float32 per query and head   |
| written out   | queries, keys, values, and the scores twice, in float32 and in bfloat16   |

The second is what `model/attention.py` does on a CPU.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from molmoact2.model.config import ModelConfig
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.model.text import Remember
from molmoact2.training.activation import blocks_of, hand_over, return_memory
from molmoact2.training.batch import AnswerTokens, Chunks, TrainBatch
from molmoact2.training.step import loss_sums

META = torch.device("meta")
TOWERS: tuple[str, ...] = ("vision", "decoder", "logits", "expert")
ENTRANCES = {
    "vision": "vision",
    "connector": "vision",
    "text": "decoder",
    "lm_head": "logits",
    "depth_gate": "expert",
    "action_expert.context_key": "expert",
    "action_expert.time_embedding": "expert",
    "action_expert.action_embedding": "expert",
}
"""Module -> the tower that what follows belongs to, until the next of them is entered."""


@dataclass(frozen=True, kw_only=True)
class PassShape:
    """The shapes of one pass."""

    num_rows: int
    tokens_per_row: int
    examples_per_row: int
    tokens_per_example: int
    images_per_example: int
    answer_tokens_per_example: int
    flow_samples: int
    """0 leaves the expert out."""
    has_dropout: bool
    """Residual dropout in the decoder."""
    insulate: bool


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What one pass keeps and computes."""

    kept: dict[str, int]
    """Tower -> bytes that are kept when nothing is computed again."""
    kept_between_blocks: dict[str, int]
    """Tower -> bytes that are kept when every block is computed again: what goes into blocks, and what is between."""
    largest_block: int
    """Bytes that the largest block keeps for its own backward pass."""
    largest_output: int
    """Bytes of the largest product of a matrix, which may be there for a moment although nothing keeps it."""
    forward_flops: float
    backward_flops: float
    recomputed_flops: float
    """Forward pass of the blocks that have a backward pass."""


def trace(model: MolmoAct2, shape: PassShape, *, is_fused: bool, is_wrapped: bool) -> Trace:
    """Run one pass of `model`, which is on the meta device in its compute dtype, and see what it keeps.

    `is_wrapped` says that decoder blocks return what they remember, as they do when they are sharded or computed again.
    """
    for block in blocks_of(model)["text"] * is_wrapped:
        return_memory(block)
        hand_over(block)
    tape = Tape(parameters={storage_of(parameter) for parameter in model.parameters()})
    batch = made_up_batch(model.config, shape)
    vision = model.config.vit_config
    height, width = vision.image_default_input_size
    grid = (height // vision.image_patch_size, width // vision.image_patch_size)
    with ExitStack() as stack:
        for remove in watch(model, tape):
            stack.callback(remove)
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(tape.save, lambda tensor: tensor))
        stack.enter_context(AttentionAccount(tape, is_fused=is_fused))
        sums = loss_sums(model, None, batch, grid=grid, dtype=model.dtype, insulate=shape.insulate)
    assert sums
    return tape.total()


@dataclass
class Tape:
    """Notes of a pass as it runs."""

    parameters: set[int]
    """Storages that are not counted."""
    tower: str = TOWERS[0]
    block: nn.Module | None = None
    saved: dict[int, tuple[int, str, nn.Module | None]] = field(default_factory=dict)
    """Storage -> bytes, tower, and the block that first kept it."""
    between: dict[int, tuple[int, str]] = field(default_factory=dict)
    """The same for what is needed to compute blocks again."""
    alive: list[Tensor] = field(default_factory=list)
    """Keeps storages from being freed, so that no two have the same identity."""
    largest_output: int = 0
    forward_flops: float = 0.0
    backward_flops: float = 0.0
    recomputed_flops: float = 0.0

    def save(self, tensor: Tensor) -> Tensor:
        """Note a tensor that autograd keeps."""
        self.alive.append(tensor)
        key, size = storage_of(tensor), tensor.untyped_storage().nbytes()
        self.saved.setdefault(key, (size, self.tower, self.block))
        return tensor

    def keep(self, tensors: Sequence[Tensor]) -> None:
        """Note tensors that stay although blocks are computed again."""
        self.alive.extend(tensors)
        for tensor in tensors:
            self.between.setdefault(storage_of(tensor), (tensor.untyped_storage().nbytes(), self.tower))

    def work(self, flops: int, *, backward: float) -> None:
        """Note `flops` of a forward pass, whose backward pass takes `backward` times as many."""
        self.forward_flops += flops
        self.backward_flops += backward * flops
        self.recomputed_flops += flops * (self.block is not None and backward > 0)

    def total(self) -> Trace:
        """Add everything up, without the parameters."""
        kept, between, blocks = dict.fromkeys(TOWERS, 0), dict.fromkeys(TOWERS, 0), defaultdict(int)
        staying = dict(self.between)
        for key, (size, tower, block) in self.saved.items():
            counted = size * (key not in self.parameters)
            kept[tower] += counted
            blocks[block] += counted
            staying |= {key: (size, tower)} if block is None else {}
        for key, (size, tower) in staying.items():
            between[tower] += size * (key not in self.parameters)
        inside = [size for block, size in blocks.items() if block is not None]
        return Trace(
            kept=kept,
            kept_between_blocks=between,
            largest_block=max(inside, default=0),
            largest_output=self.largest_output,
            forward_flops=self.forward_flops,
            backward_flops=self.backward_flops,
            recomputed_flops=self.recomputed_flops,
        )


def watch(model: MolmoAct2, tape: Tape) -> Iterator[Callable[[], None]]:
    """Let the modules tell the tape where the pass is and what they multiply; yields what takes that back."""
    modules = dict(model.named_modules())

    def entering(tower: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            tape.tower = tower

        return enter

    def enter_block(block: nn.Module, _: Any) -> None:
        tape.block = block

    def leave_block(_: nn.Module, arguments: tuple, output: Tensor) -> None:
        tape.block = None
        tape.keep([tensor for tensor in tensors_in(arguments) if output.requires_grad])
        remembered = [pair for remember in arguments if isinstance(remember, Remember) for pair in remember.layers]
        tape.keep(tensors_in(remembered))
        for tensor in tensors_in(remembered):
            tape.save(tensor)

    def multiply(matrix: nn.Linear, arguments: tuple[Tensor], output: Tensor) -> None:
        tape.largest_output = max(tape.largest_output, output.nbytes)
        learns = arguments[0].requires_grad + matrix.weight.requires_grad
        tape.work(2 * output.numel() * matrix.in_features, backward=float(learns))

    for name in ENTRANCES.keys() & modules.keys():
        yield modules[name].register_forward_pre_hook(entering(ENTRANCES[name])).remove
    for block in chain.from_iterable(blocks_of(model).values()):
        yield block.register_forward_pre_hook(enter_block).remove
        yield block.register_forward_hook(leave_block).remove
    for matrix in (module for module in modules.values() if isinstance(module, nn.Linear)):
        yield matrix.register_forward_hook(multiply).remove


class AttentionAccount(TorchFunctionMode):
    """Puts a stand-in in the place of torch's attention, which keeps what a kernel of that kind would keep."""

    def __init__(self, tape: Tape, *, is_fused: bool) -> None:
        super().__init__()
        self.tape = tape
        self.kernel = FusedAttention if is_fused else WrittenOutAttention

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace attention, pass everything else on."""
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args
        learns = any(part.requires_grad for part in args)
        scores = query.shape[:3] + key.shape[2:3]
        self.tape.work(2 * prod(scores) * (query.shape[3] + value.shape[3]), backward=self.kernel.BACKWARD * learns)
        return self.kernel.apply(query, key, value, (kwargs or {}).get("attn_mask"))


class FusedAttention(torch.autograd.Function):
    """Keeps what flash and memory-efficient kernels keep."""

    BACKWARD = 2.5
    """Work of the backward pass relative to the forward pass: five products where that has two."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = query.new_empty((*query.shape[:3], value.shape[3]))
        ctx.save_for_backward(query, key, value, mask, out, query.new_empty(query.shape[:3], dtype=torch.float32))
        return out


class WrittenOutAttention(torch.autograd.Function):
    """Keeps what `model/attention.py` keeps on a CPU: keys and values are copied for every group of queries."""

    BACKWARD = 2.0

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        groups = query.shape[1] // key.shape[1]
        copies = [repeat(part, "b m s d -> b (m g) s d", g=groups).clone() for part in (key, value)]
        scores = query.new_empty((*query.shape[:3], key.shape[2]))
        ctx.save_for_backward(query.clone(), *copies, scores, scores.float(), mask)
        return query.new_empty((*query.shape[:3], value.shape[3]))


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors in nested tuples."""
    match values:
        case Tensor():
            return [values]
        case tuple() | list():
            return [tensor for value in values for tensor in tensors_in(value)]
    return []


def storage_of(tensor: Tensor) -> int:
    """Identity of a tensor's memory."""
    return tensor.untyped_storage()._cdata


def made_up_batch(config: ModelConfig, shape: PassShape, device: torch.device = META) -> TrainBatch:
    """A pass of these shapes, without values."""
    vision = config.vit_config
    height, width = vision.image_default_input_size
    rows, columns = height // vision.image_patch_size, width // vision.image_patch_size
    num_examples = shape.num_rows * shape.examples_per_row
    num_images, num_answers = num_examples * shape.images_per_example, num_examples * shape.answer_tokens_per_example
    tokens = (shape.num_rows, shape.tokens_per_row)

    def integers(*size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.long, device=device)

    def booleans(*size: int) -> Tensor:
        return torch.ones(size, dtype=torch.bool, device=device)

    def numbers(*size: int) -> Tensor:
        return torch.zeros(size, device=device)

    inputs = ModelInputs(
        token_ids=integers(*tokens),
        image_mask=booleans(*tokens),
        valid=booleans(*tokens),
        crops=numbers(num_images, rows * columns, vision.image_patch_size**2 * 3),
        pooling=integers(num_images * tokens_per_image(config), 4),
        segment=[None, integers(*tokens)][shape.examples_per_row > 1],
    )
    chunk = (num_examples, shape.flow_samples, config.max_action_horizon, config.max_action_dim)
    prompt = (num_examples, shape.tokens_per_example - shape.answer_tokens_per_example)
    chunks = Chunks(
        place=integers(*prompt),
        is_prompt=booleans(*prompt),
        actions=numbers(num_examples, *chunk[2:]),
        is_valid=booleans(num_examples, chunk[2]),
        action_dim=integers(num_examples),
        noise=numbers(*chunk),
        t=numbers(*chunk[:2]),
    )
    has_chunks = config.add_action_expert and shape.flow_samples > 0
    return TrainBatch(
        inputs=inputs,
        drop_rate=[None, numbers(*tokens)][shape.has_dropout],
        answers=AnswerTokens(place=integers(num_answers), token_id=integers(num_answers), weight=numbers(num_answers)),
        chunks=[None, chunks][has_chunks],
        pointing=None,
        weights={},
        origins=(),
    )


def tokens_per_image(config: ModelConfig) -> int:
    """`<im_patch>` tokens of one picture: patches in windows of two by two."""
    sides = (side // config.vit_config.image_patch_size for side in config.vit_config.image_default_input_size)
    return prod(-(-side // 2) for side in sides)
