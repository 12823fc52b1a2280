from collections.abc import Iterator

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from molmoact2.envs import make
from molmoact2.envs.gymnasium import GymnasiumEnv
from molmoact2.envs.so101_expert import So101Expert


@pytest.fixture(scope="module")
def wrapped() -> Iterator[GymnasiumEnv]:
    environment = GymnasiumEnv(make("so101", image_size=(32, 48), max_steps=60), render_mode="rgb_array")
    yield environment
    environment.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasium_accepts_it(wrapped: GymnasiumEnv) -> None:
    check_env(wrapped)


def test_success_is_rewarded_and_terminates(wrapped: GymnasiumEnv) -> None:
    _, info = wrapped.reset(seed=0, options={"task": "pick"})
    assert info["instruction"].startswith("pick up")
    expert = So101Expert(wrapped.environment)
    for _ in range(60):
        _, reward, terminated, truncated, info = wrapped.step(expert.action())
        assert not truncated
        assert reward == float(info["success"]) == float(terminated)
        if terminated:
            break
    assert info["success"]
    assert info["failure"] is None


def test_time_truncates(wrapped: GymnasiumEnv) -> None:
    observation, _ = wrapped.reset(seed=0, options={"task": "push"})
    ends = [wrapped.step(observation["state"])[2:4] for _ in range(60)]
    assert ends == [(False, False)] * 59 + [(False, True)]


def test_seeds_repeat_and_unseeded_resets_differ(wrapped: GymnasiumEnv) -> None:
    first, first_info = wrapped.reset(seed=5)
    second, _ = wrapped.reset()
    again, again_info = wrapped.reset(seed=5)
    np.testing.assert_array_equal(first["images"]["front"], again["images"]["front"])
    assert first_info == again_info
    assert (first["images"]["front"] != second["images"]["front"]).any()


def test_wrong_options_are_refused(wrapped: GymnasiumEnv) -> None:
    with pytest.raises(ValueError, match="Did you mean 'pick'"):
        wrapped.reset(options={"task": "pik"})
    with pytest.raises(ValueError, match="Did you mean 'task'"):
        wrapped.reset(options={"tasks": "pick"})
    with pytest.raises(ValueError, match="render mode"):
        GymnasiumEnv(wrapped.environment, render_mode="human")
    with pytest.raises(ValueError, match="Unknown task"):
        GymnasiumEnv(wrapped.environment, task="fly")


def test_rendering_shows_the_cameras(wrapped: GymnasiumEnv) -> None:
    observation, _ = wrapped.reset(seed=1)
    picture = wrapped.render()
    assert picture is not None
    np.testing.assert_array_equal(picture[:, :48], observation["images"]["front"])
