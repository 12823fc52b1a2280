"""How examples are laid out changes no loss and no gradient; no example sees another; gradients go where they should.

float32. Losses: sums of a few hundred terms in another order, equal to 1e-6 of their values (measured: 9e-8).
Gradients: equal to 5e-6 of the largest of their tower (measured: 5e-7).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import encoded, small_encoder, small_heads, small_stage, small_start
from torch import Tensor

from molmoact2.data.augmentation import Augmentation
from molmoact2.training.batch import TrainBatch, make_batch, make_batches
from molmoact2.training.config import StageConfig
from molmoact2.training.encode import TrainExample
from molmoact2.training.optimizer import tower_of
from molmoact2.training.step import loss_sums, total_loss

STAGE = small_stage(augmentation=Augmentation(mode="none"))
NAMES = (
    ("robot", 0), ("words", 0), ("robot", 1), ("questions", 3), ("scenes", 0), ("words", 4), ("robot", 2), ("words", 1),
)  # fmt: skip
"""With two images and with none, with and without answers, a whole chunk and parts of one."""
LAYOUTS = {
    "a row each": {},
    "packed": {"tokens_per_row": 300},
    "in one row": {"tokens_per_row": 2000},
    "a pass each": {"rows_per_pass": 1},
    "packed, two rows a pass": {"tokens_per_row": 230, "rows_per_pass": 2},
}

START = small_start()
MODEL, ENCODER = START.model, small_encoder(START)
HEADS = small_heads(START)
GRID = START.processor.images.grid
Learned = tuple[dict[str, float], dict[str, Tensor]]


def examples(*names: tuple[str, int], stage: StageConfig = STAGE) -> list[TrainExample]:
    return encoded(ENCODER, stage, *names)


def sums_of(batch: TrainBatch, *, insulate: bool = False) -> dict[str, Tensor]:
    return loss_sums(MODEL, HEADS, batch, grid=GRID, dtype=torch.float32, insulate=insulate)


def gradients() -> dict[str, Tensor]:
    """Of everything that has one; afterwards nothing has."""
    named = {name: p for module in (MODEL, HEADS) for name, p in module.named_parameters()}
    found = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
    MODEL.zero_grad()
    HEADS.zero_grad()
    return found


def learned(batches: Sequence[TrainBatch]) -> Learned:
    """Mean of each loss over a step, and gradients."""
    names = {name for batch in batches for name in batch.weights}
    divisors = {name: max(sum(batch.weights.get(name, 0.0) for batch in batches), 1e-6) for name in names}
    means = dict.fromkeys(names, 0.0)
    for batch in batches:
        sums = sums_of(batch)
        total_loss(sums, vars(STAGE.losses), divisors).backward()
        means |= {name: means[name] + float(value.detach()) / divisors[name] for name, value in sums.items()}
    return means, gradients()


@pytest.fixture(scope="module")
def separate() -> Learned:
    """Every example in a pass of its own."""
    return learned([make_batch([[example]], STAGE) for example in examples(*NAMES)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_and_gradients_are_those_of_every_example_by_itself(separate: Learned, layout: str):
    batches = make_batches(examples(*NAMES), replace(STAGE, **LAYOUTS[layout]))
    losses, found = learned(batches)
    assert losses.keys() == {"language", "z", "flow", "place", "named", "things", "thing_place", "error_m"}
    assert losses == pytest.approx(separate[0], rel=1e-6)
    assert found.keys() == separate[1].keys()
    largest = {tower_of(name): 0.0 for name in found}
    for name, gradient in separate[1].items():
        largest[tower_of(name)] = max(largest[tower_of(name)], float(gradient.abs().max()))
    for name, gradient in found.items():
        assert (gradient - separate[1][name]).abs().max() <= 5e-6 * largest[tower_of(name)], name


def test_the_order_in_a_row_changes_nothing(separate: Learned):
    row = [examples(*NAMES)[i] for i in (6, 1, 4, 0, 3, 7, 2, 5)]
    assert learned([make_batch([row], STAGE)])[0] == pytest.approx(separate[0], rel=1e-6)


@torch.no_grad()
def test_what_changes_in_one_example_is_seen_by_none_of_the_others():
    row = examples(("robot", 0), ("words", 0), ("robot", 1), ("questions", 3))
    before = MODEL.read(batch := make_batch([row], STAGE).inputs, MODEL.image_features(batch, GRID))
    for changed, example in enumerate(row):
        words = example.encoded.token_ids.copy()
        words[-3:] += 1
        other = replace(example.encoded, token_ids=words, crops=-example.encoded.crops)
        inputs = make_batch([[*row[:changed], replace(example, encoded=other), *row[changed + 1 :]]], STAGE).inputs
        after = MODEL.read(inputs, MODEL.image_features(inputs, GRID))
        assert inputs.segment is not None
        own, others = (((inputs.segment == changed) == its) & inputs.valid for its in (True, False))
        assert (after.hidden != before.hidden)[own].any()
        assert torch.equal(after.hidden[others], before.hidden[others])
        for found, expected in zip(after.layers, before.layers, strict=True):
            for part in (0, 1):
                assert torch.equal(found[part].transpose(1, 2)[others], expected[part].transpose(1, 2)[others])


@torch.no_grad()
def test_a_packed_example_reads_as_it_does_alone():
    row = examples(("words", 0), ("robot", 0), ("questions", 3), ("robot", 1))
    packed = make_batch([row], STAGE).inputs
    together, begin = MODEL.read(packed, MODEL.image_features(packed, GRID)), 0
    for example in row:
        alone = example.encoded.inputs
        places = slice(begin, begin + len(example))
        encoding = MODEL.read(alone, MODEL.image_features(alone, GRID))
        torch.testing.assert_close(together.hidden[0, places], encoding.hidden[0], rtol=1e-5, atol=1e-5)
        for found, expected in zip(together.layers, encoding.layers, strict=True):
            torch.testing.assert_close(found[0][0, :, places], expected[0][0], rtol=1e-5, atol=1e-5)
        begin += len(example)


def reached(name: str, *, insulate: bool) -> set[str]:
    """The parts of the network that the gradient of one loss reaches."""
    sums_of(make_batch([examples(*NAMES[:5])], STAGE), insulate=insulate)[name].backward()
    return {parameter.split(".")[0] for parameter, gradient in gradients().items() if gradient.any()}


def test_the_experts_gradient_reaches_the_decoder_unless_it_is_insulated():
    assert reached("flow", insulate=False) == {"vision", "connector", "text", "action_expert"}
    assert reached("flow", insulate=True) == {"action_expert"}


@pytest.mark.parametrize("insulate", [False, True])
@pytest.mark.parametrize("name", ["language", "z"])
def test_words_never_reach_the_expert(name: str, insulate: bool):
    assert reached(name, insulate=insulate) == {"vision", "connector", "text", "lm_head"}


def test_steps_beyond_the_end_of_an_episode_are_seen_by_no_other():
    (cut_off,) = examples(("robot", 0))
    action = cut_off.action
    assert action is not None
    assert 0 < action.is_valid.sum() < len(action.is_valid)
    after = (~action.is_valid[:, None]).astype(np.float32)
    other = replace(action, actions=action.actions - 5 * after, noise=action.noise * (1 + 3 * after))
    flows = []
    for target in (action, other):
        sums_of(make_batch([[replace(cut_off, action=target)]], STAGE))["flow"].backward()
        flows.append(gradients())
    assert all(torch.equal(gradient, flows[1][name]) for name, gradient in flows[0].items())


def test_a_pass_with_nothing_to_learn_is_zero_and_goes_back_through_everything():
    """So that the ranks of a sharded run stay in step."""
    stage = replace(STAGE, flow_samples=0)
    (cut_off,) = examples(("robot", 0), stage=stage)
    batch = make_batch([[replace(cut_off, pointing=None)]], stage)
    sums = sums_of(batch)
    assert {name: float(value.detach()) for name, value in sums.items()} == {"language": 0.0, "z": 0.0}
    assert {name: weight for name, weight in batch.weights.items() if weight} == {}
    total_loss(sums, vars(STAGE.losses), {"language": 1e-6, "z": 1e-6}).backward()
    found = gradients()
    assert not any(gradient.any() for gradient in found.values())
    assert {name.split(".")[0] for name in found} == {"vision", "connector", "text", "lm_head"}


def test_without_heads_places_are_passed_over():
    batch = make_batch([examples(("scenes", 0))], STAGE)
    sums = loss_sums(MODEL, None, batch, grid=GRID, dtype=torch.float32, insulate=False)
    assert sums.keys() == {"language", "z"}


def test_a_network_without_an_expert_says_how_to_go_on():
    start = small_start(add_action_expert=False, action_expert_config=None, action_mode="discrete")
    batch = make_batch([examples(("robot", 1))], STAGE)
    with pytest.raises(ValueError, match="flow_samples=0"):
        loss_sums(start.model, None, batch, grid=GRID, dtype=torch.float32, insulate=False)


def test_the_total_is_the_weighted_sum_of_means_but_for_what_is_only_logged():
    sums = {"language": torch.tensor(6.0), "flow": torch.tensor(8.0), "error_m": torch.tensor(torch.nan)}
    total = total_loss(sums, {"language": 0.5, "flow": 2.0}, {"language": 3.0, "flow": 4.0, "error_m": 1.0})
    assert float(total) == 0.5 * 2 + 2.0 * 2
