"""TFRecord and tf.Example: checksums as published, values as written, and damage refused with file and offset."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlds_folders import example, message, record, slow_crc32c, varint

from molmoact2.data.tfrecord import crc32c, decode_example, masked_crc, read_examples, read_records


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(32))[::-1], 0x113FDB5C),
    ],
)
def test_published_checksums(data, expected):
    """RFC 3720, B.4, and the check value of CRC-32C."""
    assert crc32c(data) == expected


@settings(max_examples=60)
@given(st.binary(max_size=600))
def test_lanes_are_joined_as_bits_are_summed(data):
    assert crc32c(data) == slow_crc32c(data)


def test_mask_rotates_and_shifts():
    """In the words of the format: ((crc >> 15) | (crc << 17)) + 0xa282ead8, in 32 bits."""
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def test_megabytes_take_no_second():
    data = np.random.default_rng(0).bytes(4 << 20)
    crc32c(data)
    start = time.perf_counter()
    crc32c(data)
    assert time.perf_counter() - start < 1.0


VALUES = (
    st.lists(st.binary(max_size=9), max_size=4)
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5).map(lambda v: np.array(v, np.float32))
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5).map(lambda v: np.array(v, np.int64))
)


@settings(max_examples=60)
@given(features=st.dictionaries(st.text(max_size=6), VALUES, max_size=4), packed=st.booleans())
def test_examples_come_back(features, packed):
    found = decode_example(example(features, packed=packed))
    assert found.keys() == features.keys()
    for name, expected in features.items():
        assert type(found[name]) is type(expected)
        assert np.asarray(found[name]).dtype == np.asarray(expected).dtype
        assert list(found[name]) == list(expected)


def test_unknown_fields_are_passed_over():
    fixed = [varint(9 << 3 | 1) + bytes(8), varint(8 << 3 | 5) + bytes(4), varint(7 << 3) + varint(300)]
    content = b"".join(fixed) + example({"a": [b"x"]}) + message(6, b"more")
    assert decode_example(content) == {"a": [b"x"]}


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_examples_are_refused_or_read(data):
    content = bytearray(example({"a": [b"xyz"], "b": np.arange(3.0), "c": np.arange(200, 204)}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_example(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except ValueError as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x0a\xff", "an integer is cut off"),
        (b"\x0a\x05ab", "a field is cut off"),
        (b"\x0b", "unknown wire type 3"),
        (b"\x80" * 11, "an integer is cut off"),
        (message(1, message(1, message(2, b""))), "has no name"),
        (message(1, message(1, message(1, b"a") + message(2, message(9, b"")))), "neither bytes, floats nor integers"),
        (message(1, message(1, message(1, b"a") + message(2, message(3, message(1, b"\x80"))))), "integer is cut off"),
        (message(1, message(1, message(1, b"a") + message(2, message(2, message(1, b"abc"))))), "buffer size"),
        (message(1, message(1, message(1, b"a") + message(2, message(2, b"\x08\x01")))), "stored as something else"),
        (message(1, message(1, message(1, b"a") + message(2, message(2, b"") + message(3, b"")))), "of two kinds"),
    ],
)
def test_what_is_no_example(content, problem):
    with pytest.raises(ValueError, match=problem):
        decode_example(content)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "toy.tfrecord"
    path.write_bytes(b"".join(record(example({"n": np.array([n])}), masked_crc) for n in range(3)))
    return path


def test_records_come_with_their_offsets(file):
    records = list(read_records(file))
    assert [offset for offset, _ in records] == [0, len(records[0][1]) + 16, 2 * (len(records[0][1]) + 16)]
    assert [int(values["n"][0]) for _, values in read_examples(file)] == [0, 1, 2]


@pytest.mark.parametrize("missing", [1, 5, 20, 33])
def test_cut_off(file, missing):
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-missing])
    offset = size // 3 * (2 if missing < size // 3 else 1)
    with pytest.raises(ValueError, match=rf"toy.tfrecord: the record at byte {offset} is cut off"):
        list(read_examples(file))


@pytest.mark.parametrize(
    ("place", "problem"),
    [(0, "length of the record"), (9, "length of the record"), (15, "does not fit"), (-1, "does not fit")],
)
def test_every_bit_is_checked(file, place, problem):
    content = bytearray(file.read_bytes())
    size = len(content) // 3
    content[size + place % size] ^= 4
    file.write_bytes(content)
    reader = read_examples(file)
    next(reader)
    with pytest.raises(
        ValueError, match=rf"toy.tfrecord: the .*record at byte {size}.*{problem}|{problem}.* at byte {size}"
    ):
        next(reader)


def test_a_sound_record_of_something_else(tmp_path):
    (tmp_path / "x").write_bytes(record(b"hello", masked_crc))
    with pytest.raises(ValueError, match=r"the record at byte 0 is no tf.Example"):
        list(read_examples(tmp_path / "x"))
