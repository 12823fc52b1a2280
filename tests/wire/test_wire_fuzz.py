"""Whatever bytes come: a message, or a WireError, and no more memory than the bytes deserve."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from message_cases import MESSAGES
from PIL import Image

from molmoact2.types import Observation
from molmoact2.wire.codec import decode, encode
from molmoact2.wire.dialects import harness, json_numpy, openpi
from molmoact2.wire.images import decode_image, encode_jpeg
from molmoact2.wire.limits import Limits, WireError
from molmoact2.wire.messages import Ask

LIMITS = Limits()
RECORDED = Path(__file__).parent / "recorded"
GRADIENT = np.fromfunction(lambda y, x, c: 2 * y + x + 20 * c, (20, 30, 3)).astype(np.uint8)
ASK = Ask(
    id=1,
    observed_at=0.5,
    observation=Observation(images={"a": GRADIENT}, state=np.zeros(6, np.float32), instruction="wave"),
)


def recorded(start: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(RECORDED.glob(f"{start}*"))]


def png() -> bytes:
    path = RECORDED / "harness_png.msgpack"
    return msgpack.unpackb(path.read_bytes())["payload"]["images"]["agentview"]["data"]


Decoder = Callable[[bytes, Limits], object]
DECODERS: dict[str, tuple[Decoder, list[bytes]]] = {
    "ours": (decode, [encode(ASK), encode(ASK, jpeg_quality=80)]),
    "json_numpy": (json_numpy.loads, recorded("json_numpy")),
    "openpi": (openpi.unpack, recorded("openpi")),
    "harness": (harness.unpack, recorded("harness")),
    "image": (decode_image, [encode_jpeg(GRADIENT, 80), png()]),
}
every_decoder = pytest.mark.parametrize("name", DECODERS)


def survives(name: str, data: bytes) -> None:
    """Anything but a value or a WireError fails the test."""
    with suppress(WireError):
        DECODERS[name][0](data, LIMITS)


@every_decoder
@given(data=st.binary(max_size=200))
@example(data=b"\xdd\xff\xff\xff\xff")
@example(data=b"\xdf\xff\xff\xff\xff")
@example(data=b"\xc9\xff\xff\xff\xff\x01")
@example(data=b"\xc6\xff\xff\xff\xff")
@example(data=b"\xc7\x0c\xff" + b"\xff" * 12)
@example(data=b"\xd6\xff\0\0\0\0")
def test_any_bytes(name: str, data: bytes):
    survives(name, data)


@every_decoder
@given(data=st.data())
def test_damaged_messages(name: str, data: st.DataObject):
    """Cut off, bits turned over, pieces repeated, left out or replaced."""
    message = bytearray(data.draw(st.sampled_from(DECODERS[name][1])))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(message)))
        stop = data.draw(st.integers(start, min(len(message), start + 12)))
        piece = data.draw(st.binary(max_size=6) | st.just(bytes(message[start:stop]) * 2))
        message[start:stop] = piece
        if message:
            at = data.draw(st.integers(0, len(message) - 1))
            message[at] ^= 1 << data.draw(st.integers(0, 7))
    survives(name, bytes(message[: data.draw(st.integers(0, len(message)))] if data.draw(st.booleans()) else message))


@every_decoder
def test_every_start_of_a_message(name: str):
    for message in DECODERS[name][1]:
        for stop in [*range(min(len(message), 300)), *range(300, len(message), 37)]:
            with pytest.raises(WireError):
                DECODERS[name][0](message[:stop], LIMITS)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.binary(max_size=5), inner, max_size=4)
    ),
    max_leaves=15,
)
KEYS = (
    b"__ndarray__",
    b"__npgeneric__",
    b"data",
    b"dtype",
    b"shape",
    "__ndarray__",
    "__image__",
    "data",
    "dtype",
    "shape",
)


@given(
    st.dictionaries(st.sampled_from(KEYS), values | st.sampled_from(["<f4", "|u1", [1], b"\0" * 4, "png"]), max_size=6)
)
def test_maps_that_look_like_arrays(value: dict):
    for name in ("openpi", "harness"):
        survives(name, msgpack.packb({"type": "hello", "payload": {"a": value}, "seq": 0, "timestamp": 0}))
        survives(name, msgpack.packb(value))


@settings(max_examples=10)
@given(st.data())
def test_any_value_in_any_field(data: st.DataObject):
    """Well-formed maps of the right names, with anything in one of them."""
    for strategy in MESSAGES.values():
        fields = msgpack.unpackb(encode(data.draw(strategy)))
        name = data.draw(st.sampled_from(sorted(fields)))
        survives("ours", msgpack.packb({**fields, name: data.draw(values)}))


def bombs() -> Iterator[tuple[str, bytes, int]]:
    """(decoder, a message that wants much memory, what it may get in MB)"""
    million = 2**20
    for name in ("ours", "openpi", "harness"):
        yield name, b"\xdd\x00\xff\xff\xff" * 1000, 1
        yield name, b"\xdc\x01\x00" * 1000, 4
        yield name, b"\xdf\x00\xff\xff\xff" * 1000, 1
        yield name, b"\xdc\x01\x00" + (b"\xdc\x01\x00" + b"\x90" * 256) * 256 * 20, 16
        yield name, b"\xdc\x01\x00" + (b"\xdc\x01\x00" + b"\x80" * 256) * 256 * 20, 16
        yield name, b"\x91" * 4 * million, 1
        yield name, b"\xc6\xff\xff\xff\xff" + bytes(million), 1
    yield "json_numpy", b"[" + b"[]," * million + b"[]]", 16
    yield "json_numpy", b"[" * million, 16
    yield "json_numpy", b'{"a":' * million, 16
    yield "json_numpy", b'{"__numpy__":"","dtype":"|u1","shape":[8000,500,3]}', 1
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0\x00\x20\0" * 2 + b"\x08\x02\0\0\0\0\0\0\0"
    yield "image", header + bytes(1000), 1


@pytest.mark.parametrize(
    ("name", "data", "megabytes"), [pytest.param(*bomb, id=f"{i}-{bomb[0]}") for i, bomb in enumerate(bombs())]
)
def test_little_asks_for_little(name: str, data: bytes, megabytes: int):
    Image.preinit()
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            DECODERS[name][0](data, LIMITS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 2**20 + len(data) * (name == "json_numpy")
