"""Schedules, labels, sources and losses of training, against closed forms and loops."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_run import HORIZON, JOINTS, THINGS, episodes, scene_pool, small_trainer

from molmoact2.data.augmentation import Photometric
from molmoact2.model.losses import flow_loss
from molmoact2.training.config import OptimizerConfig, PointingWeights, StageConfig, TrainConfig
from molmoact2.training.examples import Examples, SceneSource, parse_instructions
from molmoact2.training.optimizer import MovingAverage, learning_rate, make_optimizer
from molmoact2.training.pointing import PointingHeads, PointingLabels, pointing_losses, scale_place
from molmoact2.training.recipes import RECIPES, find_recipe


def test_the_learning_rate_warms_up_peaks_and_ends_at_its_fraction():
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=4, final_fraction=0.25)
    rates = [learning_rate(step, 20, config) for step in range(21)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[20] == pytest.approx(0.5)
    assert all(a >= b for a, b in pairwise(rates[4:]))
    assert rates[12] == pytest.approx(0.5 + 1.5 * 0.5 * (1 + math.cos(math.pi / 2)))


def test_the_average_follows_a_constant_and_lends_itself():
    module = torch.nn.Linear(2, 2)
    average = MovingAverage(module, 0.9)
    torch.nn.init.constant_(module.weight, 3.0)
    for _ in range(200):
        average.update(module)
    torch.testing.assert_close(average.average["weight"], torch.full((2, 2), 3.0))
    torch.nn.init.constant_(module.weight, 5.0)
    with average.applied_to(module):
        assert (module.weight == average.average["weight"]).all()
    assert (module.weight == 5.0).all()


def test_every_parameter_is_optimised_once_and_only_matrices_decay(tmp_path):
    trainer = small_trainer(tmp_path)
    optimizer = make_optimizer(trainer.modules.values(), OptimizerConfig(learning_rate=1.0, vision_factor=0.5))
    inside = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(inside) == sorted(id(p) for p in trainer.parameters)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(trainer.model.vision.patch_embedding.weight)] == (0.5, 0.02)
    assert rates[id(trainer.model.text.embedding)] == (1.0, 0.0)
    assert rates[id(trainer.model.text.norm.weight)] == (1.0, 0.0)


def test_instructions_name_the_first_thing_and_bring_it_to_the_plate():
    texts = np.array(["put the blue cube on the plate", "pick up the red cube"], object)
    named, goal = parse_instructions(texts, THINGS)
    assert [THINGS[o] for o in named] == ["blue cube", "red cube"]
    assert goal.tolist() == [THINGS.index("plate"), -1]
    with pytest.raises(ValueError, match="names none"):
        parse_instructions(np.array(["wave"], object), THINGS)


def test_a_scene_is_asked_about_every_cube_in_it_and_only_about_those():
    pool = scene_pool(4)
    pool.is_present[:, 1] = False
    pool.is_present[:2, 3] = False
    drawn = SceneSource(pool, horizon=HORIZON, action_dim=JOINTS).draw(np.random.default_rng(0), 300)
    assert {THINGS[o] for o in drawn.named} == {"red cube", "blue cube"}
    assert not drawn.is_valid.any()
    plate = np.array(["plate" in text for text in drawn.instruction])
    np.testing.assert_array_equal(drawn.goal == 3, plate)
    assert drawn.is_present[plate, 3].all()


def test_episode_chunks_stop_at_the_episodes_end():
    source = episodes(12)
    drawn = source.draw(np.random.default_rng(0), 50)
    for row in range(50):
        frame = int(np.flatnonzero((source.state == drawn.state[row]).all(axis=1))[0])
        left = source.episode_ends[frame] - frame
        np.testing.assert_array_equal(drawn.actions[row, :left], source.actions[frame : frame + left])
        np.testing.assert_array_equal(drawn.is_valid[row], np.arange(HORIZON) < left)


@given(seed=st.integers(0, 1000))
def test_cells_are_the_image_tokens_that_contain_the_pixels(seed):
    pool = scene_pool(1, seed)
    trainer_encoder = small_trainer_encoder()
    source = SceneSource(pool, horizon=HORIZON, action_dim=JOINTS)
    batch = trainer_encoder(source.at(np.array([0]), np.random.default_rng(0)), np.random.default_rng(0))
    for view in range(2):
        for thing in range(len(THINGS)):
            u, v = pool.pixel[0, view, thing]
            assert batch.labels.cell[0, view, thing] == int(v * 4) * 4 + int(u * 4)


def small_trainer_encoder():
    if not ENCODERS:
        from pathlib import Path

        ENCODERS.append(small_trainer(Path("unused")).encoder)
    return ENCODERS[0]


ENCODERS: list = []


def test_cells_and_trigger_point_at_the_right_tokens():
    encoder = small_trainer_encoder()
    rng = np.random.default_rng(0)
    batch = encoder(Examples.join([episodes().draw(rng, 3)]), rng)
    words = encoder.processor.vocabulary
    rows = torch.arange(3)
    assert (batch.inputs.token_ids[rows[:, None, None], batch.cells] == words.image.patch).all()
    assert (batch.inputs.token_ids[rows, batch.trigger] == words.action.output).all()
    assert (batch.cells[:, 0].max(dim=1).values < batch.cells[:, 1].min(dim=1).values).all()


def perfect_labels() -> PointingLabels:
    return PointingLabels(
        place_m=torch.rand(2, 5, 3),
        is_present=torch.ones(2, 5, dtype=torch.bool),
        cell=torch.randint(0, 16, (2, 2, 5)),
        named=torch.tensor([0, 2]),
        goal=torch.tensor([3, -1]),
    )


class OracleHeads(PointingHeads):
    """Heads that know the answers."""

    labels: PointingLabels

    def forward(self, trigger, cells):  # noqa: ARG002 - it knows without looking
        row, target = torch.arange(2), scale_place(self.labels.place_m)
        place = torch.stack((target[row, self.labels.named], target[row, self.labels.goal]), dim=1)
        one_hot = torch.nn.functional.one_hot(self.labels.cell, 16).float() * 100
        pointer = one_hot[row, :, self.labels.named]
        return place, pointer, one_hot.transpose(2, 3), target[:, None, None].expand(2, 2, 16, 5, 3)


def test_pointing_losses_vanish_for_one_who_knows_and_not_otherwise():
    heads, labels = OracleHeads(8, 5), perfect_labels()
    heads.labels = labels
    total, parts = pointing_losses(heads, torch.zeros(2, 8), torch.zeros(2, 2, 16, 8), labels, PointingWeights())
    assert float(total) == pytest.approx(0, abs=1e-6)
    assert float(parts["error_m"]) == 0
    guess = PointingHeads(8, 5)
    total, _ = pointing_losses(guess, torch.zeros(2, 8), torch.zeros(2, 2, 16, 8), labels, PointingWeights())
    assert float(total.detach()) > 1


def test_absent_and_unseen_things_count_for_nothing():
    torch.manual_seed(0)
    heads, labels = PointingHeads(8, 5), perfect_labels()
    trigger, cells = torch.randn(2, 8), torch.randn(2, 2, 16, 8)
    hidden = labels.cell.clone()
    hidden[:, :, 4] = -1
    moved = labels.place_m.clone()
    moved[:, 4] += 100
    masked = PointingLabels(**{**vars(labels), "cell": hidden})
    also = PointingLabels(**{**vars(labels), "cell": hidden, "place_m": moved})
    first, _ = pointing_losses(heads, trigger, cells, masked, PointingWeights())
    second, _ = pointing_losses(heads, trigger, cells, also, PointingWeights())
    assert torch.equal(first, second)


@given(seed=st.integers(0, 2**32 - 1))
def test_flow_loss_ignores_padding(seed):
    generator = torch.Generator().manual_seed(seed)
    velocity, target = torch.randn(2, 2, 3, 4, 5, generator=generator)
    valid = torch.rand(2, 4, generator=generator) < 0.6
    width = torch.randint(1, 6, (2,), generator=generator)
    loss = flow_loss(velocity, target, valid, width)
    terms = [
        (float(velocity[b, k, h, a]) - float(target[b, k, h, a])) ** 2
        for b in range(2) for k in range(3) for h in range(4) for a in range(5)
        if valid[b, h] and a < width[b]
    ]  # fmt: skip
    assert float(loss) == pytest.approx(float(np.mean(terms)) if terms else 0.0, rel=1e-5)


def test_augmentation_follows_its_seed_and_keeps_grey_grey_without_tint():
    images = torch.full((2, 4, 4, 3), 100, dtype=torch.uint8)
    augment = Photometric(tint=0.0)
    first, second = (augment(images, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert (first == first[..., :1]).all()
    assert torch.equal(
        Photometric(brightness=0, contrast=0, saturation=0, tint=0)(images, np.random.default_rng(0)), images
    )


def test_contradictory_stages_are_refused():
    optimizer = OptimizerConfig(learning_rate=1e-3)
    with pytest.raises(ValueError, match="scenes or frames"):
        StageConfig(name="empty", num_steps=1, scenes_per_step=0, frames_per_step=0, optimizer=optimizer)
    with pytest.raises(ValueError, match="at least one stage"):
        TrainConfig(stages=())


def test_recipes_are_found_by_name_or_suggested():
    assert find_recipe("nano-so101") is RECIPES["nano-so101"]
    with pytest.raises(ValueError, match="Did you mean 'nano-so101'"):
        find_recipe("nano-so100")
