"""Messages of our protocol, made up by hypothesis, and how they are compared."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import get_args

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from hypothesis.strategies import SearchStrategy

from molmoact2.types import Committed, Observation
from molmoact2.wire.limits import Code, Limits
from molmoact2.wire.messages import (
    Answer,
    Ask,
    Control,
    Hello,
    Message,
    Refusal,
    Reset,
    RobotCard,
    Telemetry,
    Thought,
    Welcome,
)

names = st.text(st.characters(codec="utf-8"), max_size=12)
words = names.filter(str.strip)
counts = st.integers(0, 2**63 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
seconds = st.floats(1e-3, 1e6)
units = st.tuples(numbers, numbers)
statistics = st.dictionaries(names, st.lists(numbers, max_size=3).map(tuple), max_size=3)


def tuples(of: SearchStrategy) -> SearchStrategy:
    return st.lists(of, max_size=3).map(tuple)


def arrays(dtype: type, shape: object) -> SearchStrategy:
    finite = {"allow_nan": False, "allow_infinity": False} if np.dtype(dtype).kind == "f" else {}
    return stnp.arrays(dtype, shape, elements=finite)


def rows(least: int = 0) -> SearchStrategy:
    return st.tuples(st.integers(least, 4), st.integers(least, 4)).flatmap(lambda shape: arrays(np.float32, shape))


images = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(lambda size: arrays(np.uint8, (*size, 3)))
observations = st.builds(
    Observation,
    images=st.dictionaries(words, images, min_size=1, max_size=3),
    state=st.sampled_from([np.float32, np.float64]).flatmap(lambda dtype: arrays(dtype, st.integers(1, 8))),
    instruction=words,
)
committed = rows().flatmap(
    lambda actions: st.builds(Committed, actions=st.just(actions), delay=st.integers(0, len(actions)))
)
cards = st.builds(
    RobotCard,
    tag=names,
    cameras=tuples(names),
    state_names=tuples(names),
    action_names=tuples(names),
    action_units=tuples(names),
    control_hz=numbers,
    action_horizon=counts,
    n_action_steps=counts,
    setup=names,
    control_mode=names,
    normalization=names,
    state_statistics=statistics,
    action_statistics=statistics,
    gripper_range=st.none() | units,
    action_limits=st.none() | tuples(units),
)
limits = st.builds(Limits, **dict.fromkeys(vars(Limits()), counts))
thoughts = st.integers(0, 5).flatmap(
    lambda n: st.builds(Thought, codes=arrays(np.int64, n), changed=arrays(np.bool_, n), age=counts)
)
moves = st.integers(0, 3).flatmap(
    lambda n: st.builds(
        Telemetry,
        time=numbers,
        mode=names,
        executed=arrays(np.float32, (n, 2)),
        measured=arrays(np.float32, (n, 3)),
        times=arrays(np.float64, n),
        notes=tuples(names),
    )
)

MESSAGES: Mapping[type, SearchStrategy] = {
    Hello: st.builds(Hello, client=names, protocol=counts, session=st.none() | names),
    Welcome: st.builds(
        Welcome,
        server=names,
        model=names,
        revision=st.none() | names,
        session=names,
        robots=tuples(cards),
        modes=tuples(names),
        can_think=st.booleans(),
        limits=limits,
        protocol=counts,
        image_encodings=tuples(names),
    ),
    Ask: st.builds(
        Ask,
        id=counts,
        observation=observations,
        observed_at=numbers,
        embodiment=st.none() | names,
        mode=st.sampled_from(["continuous", "discrete"]),
        think=st.booleans(),
        think_ahead=st.booleans(),
        num_steps=st.none() | st.integers(1, 64),
        num_action_steps=st.none() | st.integers(1, 2**40),
        seed=st.none() | counts,
        deadline_s=st.none() | seconds,
        committed=st.none() | committed,
    ),
    Answer: st.builds(
        Answer,
        id=counts,
        observed_at=numbers,
        actions=rows(1),
        seed=counts,
        timing=st.dictionaries(names, numbers, max_size=4),
        thought=st.none() | thoughts,
    ),
    Refusal: st.builds(
        Refusal,
        code=st.sampled_from(get_args(Code)),
        message=names,
        id=st.none() | counts,
        retry_after_s=st.none() | seconds,
    ),
    Reset: st.builds(Reset, seed=st.none() | counts),
    Telemetry: moves,
    Control: st.builds(
        Control,
        command=st.sampled_from(["hold", "resume", "stop", None]),
        instruction=st.none() | names,
    ),
}
assert MESSAGES.keys() == set(get_args(Message)), "a message has no made-up examples"
messages = st.one_of(*MESSAGES.values())


def same(one: object, other: object) -> bool:
    """Whether two messages, or parts of them, say the same; arrays also by their types."""
    if is_dataclass(one) and not isinstance(one, type):
        return type(one) is type(other) and same(vars(one), vars(other))
    match one, other:
        case np.ndarray(), np.ndarray():
            return one.dtype == other.dtype and np.array_equal(one, other)
        case Mapping(), Mapping():
            return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
        case tuple(), tuple():
            return len(one) == len(other) and all(map(same, one, other))
    return one == other and type(one) is type(other)
