"""Activation checkpointing changes what is kept, and nothing of what is computed."""

from pathlib import Path

import pytest
import torch
from scale_run import ScaleRun, make_checkpoint
from torch import nn

from molmoact2.model.attention import KeyValueCache
from molmoact2.training.activation import blocks_of, recompute
from molmoact2.training.parallel import ALONE
from molmoact2.training.sharding import shard


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("activation") / "start"
    make_checkpoint(folder)
    return folder


COUNTS = {"examples": 2, "speaking": 2, "actions": 20}


def gradients(run: ScaleRun, numbers: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    loss = run.network(lambda: run.loss(numbers, COUNTS))
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in run.network.named_parameters()}


@pytest.mark.parametrize("is_uneven", [False, True], ids=["images and actions", "one without"])
def test_losses_and_gradients_are_the_same_to_the_bit(start: Path, is_uneven: bool):
    plain = ScaleRun(start, is_uneven=is_uneven)
    loss, wanted = gradients(plain, [0, 1])
    thrifty = ScaleRun(start, recompute=True, is_uneven=is_uneven)
    names = [name for name, _ in plain.model.named_parameters()]
    assert names == [name for name, _ in thrifty.model.named_parameters()]
    again, found = gradients(thrifty, [0, 1])
    assert torch.equal(loss, again)
    for name, gradient in wanted.items():
        other = found[name]
        assert (gradient is None) == (other is None), name
        assert gradient is None or torch.equal(gradient, other), name


def test_every_block_runs_again_and_remembers_once(start: Path):
    run = ScaleRun(start, recompute=True)
    runs = dict.fromkeys(blocks_of(run.model), 0)

    def count(name: str):
        def hook(*_: object) -> None:
            runs[name] += 1

        return hook

    for name, blocks in blocks_of(run.model).items():
        blocks[0].get_submodule("mlp").register_forward_pre_hook(count(name))
    inputs = run.inputs([0])
    encoding = run.model.read(inputs, run.model.image_features(inputs, run.processor.images.grid))
    assert len(encoding.layers) == len(run.model.text.blocks)
    gradients(run, [0])
    assert len(encoding.layers) == len(run.model.text.blocks)
    assert runs == {"vision": 3, "text": 3, "action_expert": 2}


def test_less_is_kept(start: Path):
    def kept(run: ScaleRun) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = run.loss([0, 1], COUNTS)
        assert loss.requires_grad
        return sum(sizes.values())

    assert kept(ScaleRun(start, recompute=True)) < 0.7 * kept(ScaleRun(start))


def test_random_numbers_are_drawn_again_alike():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    plain = torch.ones(3, 4)
    torch.manual_seed(1)
    block(plain).sum().backward()
    wanted = [p.grad.clone() for p in block.parameters()]
    block.zero_grad()
    recompute(block)
    torch.manual_seed(1)
    block(plain).sum().backward()
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(block.parameters(), wanted, strict=True))


def test_a_cache_is_written_and_read_as_before(start: Path):
    plain, thrifty = ScaleRun(start), ScaleRun(start, recompute=True)
    outputs = []
    for run in (plain, thrifty):
        text = run.model.config.text_config
        shape = (text.num_hidden_layers, 1, text.num_key_value_heads, 400, text.head_dim)
        cache, inputs = KeyValueCache(shape, dtype=torch.float32, device="cpu"), run.inputs([0])
        with torch.no_grad():
            run.model.read(inputs, run.model.image_features(inputs, run.processor.images.grid), cache)
            outputs.append(run.model.extend(torch.tensor([[5, 6]]), cache))
    assert torch.equal(*outputs)


def test_a_world_of_one_without_it_leaves_the_network_alone(start: Path):
    model = ScaleRun(start).model
    forwards = [block.forward for blocks in blocks_of(model).values() for block in blocks]
    network = shard(model, [], ALONE, compute_dtype=torch.float32, checkpoint_activations=False)
    assert [block.forward for blocks in blocks_of(model).values() for block in blocks] == forwards
    assert network(lambda: 3) == 3
