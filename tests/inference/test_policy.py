"""What a policy may be asked, what it refuses, and that its paths agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import molmoact2
from golden_cases import GOLDEN, arrays, cases, policy
from molmoact2 import ActionChunk, Observation, load_policy
from molmoact2.inference.decoding import DecodingError
from molmoact2.tokens import ActionDecodeError, ActionTokenizer

FLOW = cases("continuous")
THINK = cases("depth_continuous")
TINY, WIDE, THREE_IMAGES = (case.observation() for case in FLOW[:3])
ARM = "toy_arm"


class FakeActionTokenizer:
    """Reads any spoken action as a ramp: the random checkpoints speak no language of actions."""

    def decode(self, token_ids, *, horizon: int, action_dim: int) -> np.ndarray:
        assert len(token_ids) == 1
        return np.tile(np.linspace(-1, 1, horizon)[:, None], (1, 1, action_dim))


def test_abilities():
    assert policy("tiny").modes == ("continuous", "discrete")
    assert policy("tiny-discrete").modes == ("discrete",)
    assert [policy(name).can_think for name in ("tiny", "tiny-think", "tiny-discrete")] == [False, True, False]
    assert policy("tiny-think").kind == "vision-language-action (continuous, discrete, thinks)"
    assert policy("tiny").embodiments == (ARM, "toy_wide")
    assert policy("tiny").revision is None
    plain = replace(policy("tiny"), processor=replace(policy("tiny").processor, norm_stats=None))
    assert plain.kind == "vision-language"
    with pytest.raises(ValueError, match="can only be asked in words"):
        plain.act(TINY)


def test_the_package_gives_policies_on_demand():
    assert molmoact2.load_policy is load_policy
    with pytest.raises(AttributeError):
        molmoact2.nothing_of_this_name  # noqa: B018


@pytest.mark.parametrize("case", FLOW[:2], ids=str)
def test_a_chunk(case):
    chunk, stats = case.policy.act(case.observation(), case.tag, seed=0), case.processor.tag(case.tag)
    assert isinstance(chunk, ActionChunk)
    assert chunk.actions.shape == (stats.n_action_steps, stats.action.width)
    assert chunk.actions.dtype == np.float32
    assert chunk.depth is None
    assert list(chunk.timing) == ["preprocess", "vision", "prefill", "flow", "decode"]
    assert all(seconds >= 0 for seconds in chunk.timing.values())


def test_a_batch_is_its_observations_one_by_one():
    """Prompts of other lengths and other numbers of images; padding changes the order of sums, so not bit by bit."""
    observations = [TINY, THREE_IMAGES, replace(TINY, instruction="fold the long blue towel and put it on the table")]
    noise = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    together = policy("tiny").act(observations, ARM, noise=noise)
    for one, chunk, its_noise in zip(observations, together, noise, strict=True):
        alone = policy("tiny").act(one, ARM, noise=its_noise)
        np.testing.assert_allclose(chunk.actions, alone.actions, atol=2e-6)


def test_a_list_of_one_is_a_list():
    chunks = policy("tiny").act([TINY], ARM, seed=1)
    np.testing.assert_array_equal(chunks[0].actions, policy("tiny").act(TINY, ARM, seed=1).actions)


def test_named_images_are_put_in_order():
    front, wrist = TINY.images
    named = replace(TINY, images={"observation.images.wrist": wrist, "front": front})
    np.testing.assert_array_equal(
        policy("tiny").act(named, ARM, seed=0).actions, policy("tiny").act(TINY, ARM, seed=0).actions
    )


def test_noise_comes_from_the_seed_the_session_or_chance():
    act = policy("tiny").act
    first = act(TINY, ARM, seed=3).actions
    np.testing.assert_array_equal(first, act(TINY, ARM, seed=3).actions)
    assert (first != act(TINY, ARM, seed=4).actions).any()
    assert (act(TINY, ARM).actions != act(TINY, ARM).actions).any()
    one, other = (policy("tiny").new_session(seed=3) for _ in range(2))
    episode = [act(TINY, ARM, session=one).actions for _ in range(2)]
    np.testing.assert_array_equal(episode[0], first)
    assert (episode[0] != episode[1]).any()
    np.testing.assert_array_equal(episode, [act(TINY, ARM, session=other).actions for _ in range(2)])


def test_sessions_of_a_batch_draw_as_they_would_alone():
    act, new_session = policy("tiny").act, policy("tiny").new_session
    together = act([TINY, TINY], ARM, session=[new_session(1), new_session(2)])
    for chunk, seed in zip(together, (1, 2), strict=True):
        alone = act(TINY, ARM, session=new_session(seed))
        np.testing.assert_allclose(chunk.actions, alone.actions, atol=2e-6)


def test_more_steps_than_usual_may_be_asked_for():
    six = policy("tiny").act(TINY, ARM, seed=0, num_action_steps=6).actions
    assert six.shape == (6, 5)
    np.testing.assert_array_equal(six[:4], policy("tiny").act(TINY, ARM, seed=0).actions)


def test_thinking_shows_its_depth():
    case = THINK[0]
    chunk = case.policy.act(case.observation(), case.tag, think=True, seed=0)
    assert list(chunk.timing) == ["preprocess", "vision", "prefill", "depth", "flow", "decode"]
    assert chunk.depth.codes.shape == chunk.depth.changed.shape == (16,)
    assert chunk.depth.codes.dtype == np.int64
    assert chunk.depth.preview is None


def test_thinking_in_a_still_scene_keeps_every_code():
    case, session = THINK[0], THINK[0].policy.new_session(0)
    first, second = (case.policy.act(case.observation(), case.tag, think=True, session=session) for _ in range(2))
    assert first.depth.changed.all()
    assert not second.depth.changed.any()
    np.testing.assert_array_equal(first.depth.codes, second.depth.codes)


def test_a_thinking_list_is_its_observations_one_by_one():
    case = THINK[0]
    other = replace(case.observation("next/"), instruction="wave")
    noise = np.random.default_rng(0).normal(size=(2, 6, 8)).astype(np.float32)
    together = case.policy.act([case.observation(), other], case.tag, think=True, noise=noise)
    for one, chunk, its_noise in zip((case.observation(), other), together, noise, strict=True):
        alone = case.policy.act(one, case.tag, think=True, noise=its_noise)
        np.testing.assert_allclose(chunk.actions, alone.actions, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(chunk.depth.codes, alone.depth.codes)


def test_a_think_checkpoint_also_acts_without_thinking():
    case = THINK[0]
    assert case.policy.act(case.observation(), case.tag, seed=0).depth is None


@pytest.mark.parametrize("case", cases("discrete", "depth_discrete"), ids=str)
def test_spoken_actions(case):
    speaker = replace(case.policy, action_tokenizer=FakeActionTokenizer())
    chunk = speaker.act(case.observation(), case.tag, mode="discrete", think=case.thinks)
    stats = case.processor.tag(case.tag)
    ramp = np.tile(np.linspace(-1, 1, stats.action_horizon)[:, None], (1, stats.action.width))
    np.testing.assert_array_equal(chunk.actions, case.processor.decode_actions(ramp, case.tag))
    assert "speech" in chunk.timing
    assert (chunk.depth is not None) == case.thinks


def test_a_spoken_action_in_another_language_is_an_error_not_zeros():
    real = ActionTokenizer.load(GOLDEN / "fast_tokenizer")
    speaker = replace(policy("tiny-discrete"), action_tokenizer=real)
    with pytest.raises(ActionDecodeError, match="levels, but 6 steps of 5 dimensions need 30"):
        speaker.act(cases("discrete")[0].observation(), ARM, mode="discrete")


@pytest.mark.parametrize(
    ("name", "mode", "stop"), [("tiny-think", "continuous", 590), ("tiny-discrete", "discrete", 386)]
)
def test_a_checkpoint_that_does_not_stop_talking_is_named(name: str, mode: str, stop: int):
    endless = replace(load_policy(GOLDEN / name), action_tokenizer=FakeActionTokenizer())
    with torch.no_grad():
        endless.model.lm_head.weight[stop] = 0
    session = endless.new_session()
    with pytest.raises(DecodingError, match=f"token id {stop}"):
        endless.act(cases("depth_continuous", "discrete")[0].observation(), ARM, mode=mode,
                    think=name == "tiny-think", session=session)  # fmt: skip
    assert session.depth is None


@pytest.mark.parametrize("think", [False, True])
def test_bfloat16_is_close_on_a_cpu(think: bool):
    """Weights of 8 bits of precision: actions in a range of about 2 agree to a few percent of it."""
    case, rough = THINK[0], load_policy(GOLDEN / "tiny-think", dtype="bfloat16")
    assert rough.model.dtype == torch.bfloat16
    exact = case.policy.act(case.observation(), case.tag, noise=case["noise"][0], think=think)
    chunk = rough.act(case.observation(), case.tag, noise=case["noise"][0], think=think)
    assert chunk.actions.dtype == np.float32
    assert np.abs(chunk.actions - exact.actions).max() < 0.2


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("tiny", {"mode": "both"}, "Unknown mode 'both'"),
        ("tiny", {"mode": "discrete"}, "needs an action tokenizer"),
        ("tiny-discrete", {}, "cannot act in continuous mode. Its modes: discrete"),
        ("tiny", {"think": True}, "cannot think"),
        ("tiny", {"embodiment": "toy_arms"}, "Did you mean 'toy_arm'"),
        ("tiny", {"embodiment": None}, "name one"),
        ("tiny", {"num_steps": 0}, "num_steps must be a whole number of at least 1, got 0"),
        ("tiny", {"num_steps": 2.5}, "num_steps"),
        ("tiny", {"num_steps": True}, "num_steps"),
        ("tiny", {"num_action_steps": 0}, "num_action_steps"),
        ("tiny", {"num_action_steps": 7}, "at most 6, the horizon of 'toy_arm', got 7"),
        ("tiny", {"noise": np.zeros((5, 8))}, "shape \\[6, 8\\], got \\[5, 8\\]"),
        ("tiny", {"noise": np.full((6, 8), np.nan)}, "finite"),
        ("tiny", {"noise": np.zeros((6, 8)), "seed": 1}, "only one"),
        ("tiny", {"session": []}, "1 different sessions"),
        ("tiny", {"images": {"top": WIDE.images[0]}}, "must be named front, wrist"),
        ("tiny", {"images": []}, "1 to 5 images, got 0"),
        ("tiny", {"images": list(WIDE.images) * 6}, "1 to 5 images, got 6"),
        ("tiny", {"state": np.zeros(4)}, "5 numbers"),
        ("tiny", {"state": np.full(5, np.nan)}, "finite"),
        ("tiny", {"instruction": ""}, "in words"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_computed(
    name: str, changes: dict, message: str, monkeypatch
):
    asked = policy(name)
    monkeypatch.setattr(asked.model, "image_features", None)
    parts = {key: changes.pop(key) for key in ("images", "state", "instruction") if key in changes}
    options = {"embodiment": ARM, **changes}
    with pytest.raises(ValueError, match=message):
        asked.act(replace(TINY, **parts), **options)


@pytest.mark.parametrize("observations", [[], None, "front", [TINY, None], {"images": TINY.images}])
def test_only_observations_can_be_acted_on(observations):
    with pytest.raises(ValueError, match="an Observation or a list of them"):
        policy("tiny").act(observations, ARM)


def test_one_bad_observation_spoils_the_batch():
    with pytest.raises(ValueError, match="5 numbers"):
        policy("tiny").act([TINY, replace(TINY, state=np.zeros(3))], ARM)


def test_one_session_is_one_episode():
    session = policy("tiny").new_session()
    for sessions in (session, [session], [session, session]):
        with pytest.raises(ValueError, match="2 different sessions"):
            policy("tiny").act([TINY, TINY], ARM, session=sessions)


@pytest.mark.parametrize("limit", ["max_action_horizon", "max_action_dim"])
def test_a_robot_too_large_for_the_checkpoint_is_refused(limit: str):
    tiny = load_policy(GOLDEN / "tiny")
    tiny.model.config = replace(tiny.config, **{limit: 4})
    with pytest.raises(ValueError, match=r"Correct its norm_stats\.json"):
        tiny.act(TINY, ARM)


def test_a_refused_question_leaves_the_session_as_it_was():
    act, session = policy("tiny").act, policy("tiny").new_session(5)
    with pytest.raises(ValueError, match="5 numbers"):
        act(replace(TINY, state=np.zeros(3)), ARM, session=session)
    np.testing.assert_array_equal(act(TINY, ARM, session=session).actions, act(TINY, ARM, seed=5).actions)


def test_questions_in_words():
    """A random checkpoint says nothing sensible, so the end of the turn is made its likeliest word."""
    silent, question = load_policy(GOLDEN / "tiny"), "What is on the table?"
    with pytest.raises(DecodingError, match="without ending its answer"):
        silent.ask(question, TINY.images, max_tokens=8)
    inputs = silent.processor.encode_question(question, TINY.images).inputs
    with torch.no_grad():
        features = silent.model.image_features(inputs, silent.processor.images.grid)
        silent.model.lm_head.weight[386] = 100 * silent.model.read(inputs, features).hidden[0, -1]
    assert silent.ask(question, TINY.images, max_tokens=1) == ""


def test_encode_is_what_act_reads():
    case = THINK[0]
    encoded = case.policy.encode(case.observation(), case.tag, think=True)
    np.testing.assert_array_equal(encoded.token_ids, arrays("tiny-think")["case0/inputs/input_ids"][0])
    with pytest.raises(ValueError, match="cannot think"):
        policy("tiny").encode(TINY, ARM, think=True)


def test_the_callers_arrays_are_left_alone():
    before = [image.copy() for image in TINY.images], TINY.state.copy()
    noise = np.zeros((6, 8), np.float32)
    policy("tiny").act(TINY, ARM, noise=noise)
    np.testing.assert_array_equal(before[0][0], TINY.images[0])
    np.testing.assert_array_equal(before[1], TINY.state)
    assert not noise.any()


def test_observation_of_float_images_is_the_same_question():
    floating = Observation(
        images=[image / np.float32(255) for image in TINY.images], state=TINY.state, instruction=TINY.instruction
    )
    np.testing.assert_array_equal(
        policy("tiny").act(floating, ARM, seed=0).actions, policy("tiny").act(TINY, ARM, seed=0).actions
    )


def test_noise_is_drawn_at_the_scale_of_the_checkpoint_and_taken_as_given():
    tiny = policy("tiny")
    quiet = load_policy(GOLDEN / "tiny")
    quiet.model.config = replace(quiet.config, flow_matching_noise_scale=0.5)
    noise = torch.randn(6, 8, generator=torch.Generator().manual_seed(3)).numpy()
    drawn = quiet.act(TINY, ARM, seed=3).actions
    np.testing.assert_array_equal(drawn, tiny.act(TINY, ARM, noise=0.5 * noise).actions)
    given = quiet.act(TINY, ARM, noise=noise).actions
    np.testing.assert_array_equal(given, tiny.act(TINY, ARM, noise=noise).actions)
