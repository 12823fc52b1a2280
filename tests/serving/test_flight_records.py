"""Records: every bit of an exchange comes back, and nothing else is taken for one."""

import zlib
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from made_up_flights import NOBODY, is_same, made_up, telemetry

from molmoact2.serving.exchange import Exchange
from molmoact2.serving.flight.events import Ended, Failed, Gap, Moved
from molmoact2.serving.flight.log import with_images
from molmoact2.serving.flight.pictures import LIMITS, pack_image, unpack_image
from molmoact2.serving.flight.records import (
    READERS,
    Begin,
    End,
    read,
    read_image,
    write_event,
    write_exchange,
    write_image,
)
from molmoact2.types import ActionChunk

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
EXCHANGES = st.builds(
    lambda state, actions, text, options, seed, refusal: replace(
        made_up(seed % 1000),
        chunk=None if refusal else ActionChunk(actions=actions),
        refusal=refusal,
        question=replace(
            made_up(0).question,
            observation=replace(made_up(0).question.observation, state=state, instruction=text),
            options=options,
            seed=seed,
            committed=None,
        ),
    ),
    state=arrays.arrays(st.sampled_from(("<f4", "<f8")), st.integers(0, 20)),
    actions=arrays.arrays("<f4", st.tuples(st.integers(0, 5), st.integers(0, 5))),
    text=TEXT,
    options=st.dictionaries(TEXT, TEXT | st.booleans() | st.none() | NUMBERS, max_size=4),
    seed=st.integers(0, 2**63 - 1),
    refusal=st.none() | st.tuples(st.sampled_from(("late", "busy", "internal")), TEXT),
)  # fmt: skip


def there_and_back(exchange: Exchange) -> Exchange:
    images = exchange.question.observation.images
    assert isinstance(images, dict)
    offsets = {name: place for place, name in enumerate(images)}
    again = read(write_exchange(exchange, offsets))
    kept = [read_image(write_image(image)) for image in images.values()]
    return with_images(again, lambda place: kept[place])


@given(exchange=EXCHANGES)
def test_every_bit_of_an_exchange_comes_back(exchange: Exchange):
    assert is_same(there_and_back(exchange), exchange)


def test_thoughts_and_committed_rows_come_back():
    assert is_same(there_and_back(made_up(3)), made_up(3))


@pytest.mark.parametrize(
    "event",
    [
        Begin(format=1, flight="f", segment=0, at=1.0, policy=NOBODY),
        Failed(at=1.0, where="a", error_id="b", message="c"),
        Ended(at=2.0, session="one"),
        Gap(at=3.0, reason="r", num_exchanges=2, num_others=0, first=4, last=5, sessions=("one", "two")),
        Gap(at=3.0, reason="r", num_exchanges=0, num_others=1, first=None, last=None, sessions=()),
        End(at=4.0, num_exchanges=7),
    ],
    ids=lambda event: type(event).__name__,
)
def test_events_come_back(event):
    assert read(write_event(event)) == event


def test_telemetry_comes_back():
    moved = Moved(at=5.0, session="one", telemetry=telemetry(notes=("slow",)))
    again = read(write_event(moved))
    assert (again.at, again.session) == (5.0, "one")
    assert is_same(again.telemetry, moved.telemetry)


@given(image=arrays.arrays(np.uint8, st.tuples(st.integers(0, 9), st.integers(0, 9), st.just(3))))
def test_images_come_back(image: np.ndarray):
    assert is_same(unpack_image(pack_image(image), *image.shape[:2]), image)


@pytest.mark.parametrize(
    ("data", "height", "width"),
    [
        (zlib.compress(bytes(10**6)), 2, 2),
        (zlib.compress(bytes(11)), 2, 2),
        (zlib.compress(bytes(12)) + b"more", 2, 2),
        (zlib.compress(bytes(12))[:-2], 2, 2),
        (b"not deflated", 2, 2),
        (zlib.compress(bytes(12)), LIMITS.image_pixels, 2),
        (zlib.compress(bytes(12)), -2, 2),
    ],
    ids=["bomb", "short", "more", "cut", "other", "large", "negative"],
)
def test_pixels_that_are_not_the_image_are_refused(data: bytes, height: int, width: int):
    with pytest.raises(ValueError, match="image"):
        unpack_image(data, height, width)


@pytest.mark.parametrize("image", [np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4), np.uint8)])
def test_other_images_are_not_written(image: np.ndarray):
    with pytest.raises(ValueError, match="uint8"):
        pack_image(image)


@given(data=st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes):
    with pytest.raises(ValueError, match=r"."):
        read(data)


@given(
    kind=st.sampled_from(sorted(READERS)),
    fields=st.dictionaries(
        TEXT | st.sampled_from(("at", "number", "session", "pixels")), NUMBERS | TEXT | st.none(), max_size=5
    ),
)
def test_records_with_other_fields_are_refused(kind: str, fields: dict):
    with pytest.raises(ValueError, match=r"."):
        read(msgpack.packb({**fields, "kind": kind}))


@pytest.mark.parametrize("change", [{"total_s": np.nan}, {"session": 3}, {"episode": -1}, {"refusal": ("odd", "x")}])
def test_what_could_not_be_read_is_not_written(change: dict):
    with pytest.raises(ValueError, match=r"exchange\."):
        write_exchange(made_up(0, **change), {})
