"""The plan against what a step on this machine really takes, and against closed forms."""

import resource
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from molmoact2.model.config import ModelConfig
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.model.sizes import released_config
from molmoact2.testing import vary
from molmoact2.training.nano import nano_config
from molmoact2.training.parallel import ALONE
from molmoact2.training.plan import GIB, Hardware, Plan, Workload, alternatives, make_plan
from molmoact2.training.plan_print import print_plan
from molmoact2.training.plan_trace import made_up_batch
from molmoact2.training.sharding import shard
from molmoact2.training.step import loss_sums
from molmoact2.training.trainable import PRESETS, TrainableConfig, prepare

NANO = vary(nano_config(), {"image_patch_id": 600, "text_config": {"vocab_size": 590, "additional_vocab_size": 14}})
WORK = Workload(
    examples_per_step=4,
    text_tokens_per_example=30,
    answer_tokens_per_example=5,
    rows_per_pass=4,
    flow_samples=4,
    checkpoint_activations=False,
)
CPU = Hardware(gpu="cpu")
RELEASED = Workload(examples_per_step=256, tokens_per_row=2100)
LORA = replace(PRESETS["lora"], lora_rank=8)
FACTOR = 1.06
"""How far predicted and measured activations may be apart."""


class Measured:
    """One step of a real network on this machine."""

    def __init__(self, config: ModelConfig, trainable: TrainableConfig, work: Workload) -> None:
        model, shape = MolmoAct2(config), work.shape(config)
        rows = torch.ones(config.text_config.vocab_size, dtype=torch.bool)
        prepare(model, trainable, added_rows=rows, frozen_dtype=torch.bfloat16)
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, fused=True)
        vision = config.vit_config
        grid = tuple(side // vision.image_patch_size for side in vision.image_default_input_size)
        saved: dict[int, torch.Tensor] = {}

        def save(tensor: torch.Tensor) -> torch.Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        batch = made_up_batch(config, shape, torch.device("cpu"))
        counter = FlopCounterMode(display=False)
        with counter, torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            sums = loss_sums(model, None, batch, grid=grid, dtype=torch.bfloat16, insulate=work.insulate)
            loss = torch.stack(list(sums.values())).sum()
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.activations = sum(t.untyped_storage().nbytes() for key, t in saved.items() if key not in own)
        self.flops = counter.get_total_flops()
        with counter:
            loss.backward()
        optimizer.step()
        self.flops += counter.get_total_flops()
        self.weights = sum(parameter.nbytes for parameter in model.parameters())
        self.gradients = sum(parameter.grad.nbytes for parameter in learning if parameter.grad is not None)
        moments = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.dim()]
        self.moments = sum(tensor.nbytes for tensor in moments)


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors that were made inside and are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.sizes:
                    self.sizes[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.sizes.pop, storage._cdata, None)
        return out


def kept(plan: Plan) -> float:
    """What the plan says is kept for the backward pass, with the copies of weights."""
    towers = ("vision", "decoder", "logits", "expert")
    return plan.memory["weights in bfloat16"] + sum(plan.memory[f"activations: {tower}"] for tower in towers)


@pytest.mark.parametrize(
    ("trainable", "changes"),
    [
        (PRESETS["full"], {}),
        (LORA, {}),
        (PRESETS["full"], {"tokens_per_row": 160, "examples_per_step": 8, "rows_per_pass": 4}),
        (PRESETS["post-training"], {"residual_dropout": True, "insulate": True}),
    ],
    ids=["full", "lora", "packed", "dropout"],
)
def test_the_plan_is_what_a_step_takes(trainable: TrainableConfig, changes: dict):
    work = replace(WORK, **changes)
    plan, measured = make_plan(NANO, trainable, CPU, work), Measured(NANO, trainable, work)
    assert plan.memory["weights"] == measured.weights
    assert plan.memory["gradients"] == measured.gradients
    assert plan.memory["Adam's moments"] == measured.moments
    assert 1 / FACTOR < kept(plan) / measured.activations < FACTOR
    assert plan.flops_per_step == pytest.approx(measured.flops, rel=0.02)


def test_the_plan_of_an_expert_alone_counts_keys_and_values_that_wait_for_it():
    plan, measured = make_plan(NANO, PRESETS["expert"], CPU, WORK), Measured(NANO, PRESETS["expert"], WORK)
    text, shape = NANO.text_config, WORK.shape(NANO)
    num_values = shape.num_rows * shape.tokens_per_row * text.num_key_value_heads * text.head_dim
    waiting = plan.memory["activations: decoder"]
    assert waiting == 2 * text.num_hidden_layers * num_values * 4, "values are a view into queries, keys and values"
    again = make_plan(NANO, PRESETS["expert"], CPU, replace(WORK, checkpoint_activations=True))
    assert again.memory["activations: decoder"] == 2 * text.num_hidden_layers * num_values * 2
    assert plan.memory["activations: vision"] == 0
    assert plan.memory["weights"] == measured.weights
    assert plan.memory["gradients"] == measured.gradients
    assert plan.memory["Adam's moments"] == measured.moments
    assert 1 / FACTOR < (kept(plan) - waiting) / measured.activations < FACTOR
    assert plan.flops_per_step == pytest.approx(measured.flops, rel=0.05), (
        "torch does not count fused attention on a CPU"
    )


def test_what_is_there_after_the_forward_pass_is_what_the_plan_keeps_when_blocks_are_computed_again():
    work, trainable = replace(WORK, checkpoint_activations=True), PRESETS["full"]
    plan, model = make_plan(NANO, trainable, CPU, work), MolmoAct2(NANO)
    prepare(model, trainable, frozen_dtype=torch.bfloat16)
    network = shard(model, [], ALONE, compute_dtype=torch.bfloat16, checkpoint_activations=True)
    batch, alive = made_up_batch(NANO, work.shape(NANO), torch.device("cpu")), Alive()
    with alive:
        sums = network(lambda: loss_sums(model, None, batch, grid=(8, 8), dtype=torch.bfloat16, insulate=False))
    assert sums["flow"].requires_grad
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    there = sum(size for storage, size in alive.sizes.items() if storage not in own)
    predicted = kept(plan) - plan.memory["weights in bfloat16"] + own_casts(model)
    assert 1 / FACTOR < predicted / there < FACTOR


def own_casts(model: MolmoAct2) -> int:
    """Bytes of the bfloat16 copies of matrices that are used outside blocks."""
    matrices = ((name, p) for name, p in model.named_parameters() if p.dim() == 2 and not name.endswith("embedding"))
    outside = ((name, p) for name, p in matrices if ".blocks." not in name or ".modulation." in name)
    return sum(2 * p.numel() for _, p in outside if p.requires_grad)


@pytest.mark.slow
def test_the_plan_is_what_a_step_of_300_million_parameters_takes():
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from benchmarks.networks import MEDIUM

    medium, work = vary(NANO, MEDIUM), replace(WORK, examples_per_step=1, rows_per_pass=1)
    plan, measured = make_plan(medium, PRESETS["full"], CPU, work), Measured(medium, PRESETS["full"], work)
    assert sum(size.total for size in plan.sizes.values()) == pytest.approx(300e6, rel=0.02)
    assert plan.memory["weights"] == measured.weights
    assert plan.memory["Adam's moments"] == measured.moments
    assert 1 / FACTOR < kept(plan) / measured.activations < FACTOR


def test_the_released_network_is_planned_from_shapes_alone():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = make_plan(released_config(), PRESETS["full"], Hardware(gpus=8), RELEASED)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert sum(size.total for size in plan.sizes.values()) == 5_442_196_208
    assert plan.memory["weights"] == 4 * 5_442_196_208 / 8
    assert grown < 0.5 * GIB
    assert plan.fits
    assert plan.rows_per_step == 64
    assert plan.passes_per_step == 4
    assert plan.tokens_per_step == 64 * 2100


@pytest.mark.slow
def test_work_is_near_six_times_parameters_times_tokens():
    work = replace(RELEASED, flow_samples=0, answer_tokens_per_example=1, checkpoint_activations=False)
    plan = make_plan(released_config(), PRESETS["full"], Hardware(), work)
    patches = 256 * 2 * 27 * 27
    decoder, vision = (plan.sizes[part].total for part in ("decoder", "vision"))
    products = 6 * (decoder * plan.tokens_per_step + vision * patches)
    assert products < plan.flops_per_step < 1.25 * products, "the rest is attention and the connector"


def test_adapters_count_rank_times_inputs_and_outputs():
    plan = make_plan(NANO, LORA, CPU, WORK)
    with torch.device("meta"):
        model = MolmoAct2(NANO)
    expected = sum(
        LORA.lora_rank * (matrix.in_features + matrix.out_features)
        for name, matrix in model.named_modules()
        if isinstance(matrix, nn.Linear) and not name.startswith("action_expert")
    )
    assert sum(size.trained for part, size in plan.sizes.items() if part != "expert") == expected


def test_computing_again_trades_memory_for_work():
    all_kept = make_plan(
        released_config(), PRESETS["full"], Hardware(gpus=8), replace(RELEASED, checkpoint_activations=False)
    )
    again = make_plan(released_config(), PRESETS["full"], Hardware(gpus=8), RELEASED)
    assert kept(again) < 0.2 * kept(all_kept)
    assert 1.2 < again.flops_per_step / all_kept.flops_per_step < 4 / 3
    text, tokens = released_config().text_config, 2 * 2100
    inputs = text.num_hidden_layers * tokens * text.hidden_size * 2
    keys_and_values = text.num_hidden_layers * tokens * 2 * text.num_key_value_heads * text.head_dim * 2
    mask = tokens * 2100
    least = inputs + keys_and_values + mask
    assert least < again.memory["activations: decoder"] < 1.5 * least


def test_gpus_share_what_stays_and_not_what_passes():
    two, eight = (make_plan(NANO, PRESETS["full"], Hardware(gpus=n), replace(WORK, ema=True)) for n in (2, 8))
    for component in ("weights", "gradients", "Adam's moments", "moving average"):
        assert two.memory[component] == 4 * eight.memory[component]
    assert kept(two) == kept(eight)
    assert two.memory["moving average"] == two.memory["weights"]


def test_answers_cost_logits():
    few, many = (
        make_plan(NANO, PRESETS["full"], CPU, replace(WORK, answer_tokens_per_example=n, tokens_per_row=120))
        for n in (10, 20)
    )
    num_logits = 4 * 10 * NANO.text_config.vocab_size
    assert many.memory["activations: logits"] - few.memory["activations: logits"] >= 4 * num_logits


@pytest.mark.slow
def test_one_small_card_trains_adapters_or_the_expert_and_not_everything():
    card, work = Hardware(gpu="RTX-4090-24"), Workload(examples_per_step=16, rows_per_pass=1)
    plans = {name: make_plan(released_config(), PRESETS[name], card, work) for name in ("full", "lora", "expert")}
    assert {name: plan.fits for name, plan in plans.items()} == {"full": False, "lora": True, "expert": True}


def test_a_plan_that_does_not_fit_says_what_to_change():
    small = Hardware(memory_gib=1.04)
    plan = make_plan(NANO, PRESETS["full"], small, replace(WORK, rows_per_pass=8, examples_per_step=8))
    assert not plan.fits
    others = alternatives(plan)
    assert others["checkpoint activations"].bytes_per_gpu < plan.bytes_per_gpu
    assert plan.trainable not in [other.trainable for name, other in others.items() if "expert" in name]
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_plan(plan, console)
    text = console.export_text()
    assert "It does not fit" in text
    assert all(change in text for change in others)


def test_a_plan_that_fits_is_printed_without_advice(capsys):
    print_plan(make_plan(NANO, PRESETS["full"], Hardware(), WORK))
    text = capsys.readouterr().out
    assert "It fits" in text
    assert "what to change" not in text
    assert "Adam's moments" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens_per_row": 50}, "a row only 50"),
        ({"flow_samples": 0, "answer_tokens_per_example": 0}, "Nothing would be learned"),
    ],
)
def test_work_that_cannot_be_done_is_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make_plan(NANO, PRESETS["full"], CPU, replace(WORK, **changes))


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (Hardware, {"gpu": "H100"}, "Did you mean 'H100-80'"),
        (Hardware, {"gpus": 0}, "gpus"),
        (Hardware, {"memory_gib": 0.0}, "memory_gib"),
        (Hardware, {"utilisation": 1.5}, "utilisation"),
        (Workload, {"rows_per_pass": 0}, "rows_per_pass"),
        (Workload, {"flow_samples": -1}, "flow_samples"),
        (Workload, {"answer_tokens_per_example": -1}, "answer_tokens"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make(**changes)
