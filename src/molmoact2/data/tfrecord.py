"""TFRecord files of tf.Example messages, read without TensorFlow.

    record    length (uint64) | masked CRC-32C of it (uint32) | content | masked CRC-32C of it (uint32)
    content   tf.Example: a protobuf message that maps names to lists of bytes, of floats or of integers

All numbers are little-endian. Both checksums of every record are verified.
"""

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import expect, malformed

Values: TypeAlias = list[bytes] | NDArray[np.float32] | NDArray[np.int64]
"""What one feature of an example holds."""

POLYNOMIAL = np.uint32(0x82F63B78)
"""Castagnoli's, its bits reversed."""
ALL_ONES = bytes.fromhex("54641f64")
"""Four bytes that take a checksum's register from all zeros to all ones, where a CRC-32C begins."""
MASK_DELTA = 0xA282EAD8
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""
LONGEST_VARINT = 10


def read_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset in the file, content) of each record. Raises ValueError, naming both, where one is damaged."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while (offset := file.tell()) < size:
            header = file.read(12)
            expect(len(header) == 12, path, f"the record at byte {offset} is cut off")
            length, check = struct.unpack("<QI", header)
            problem = f"the length of the record at byte {offset} does not fit its checksum"
            expect(masked_crc(header[:8]) == check, path, problem)
            problem = f"the record at byte {offset} is cut off: {length} bytes are promised"
            expect(offset + 16 + length <= size, path, problem)
            content = file.read(length)
            (check,) = struct.unpack("<I", file.read(4))
            expect(masked_crc(content) == check, path, f"the record at byte {offset} does not fit its checksum")
            yield offset, content


def read_examples(path: Path) -> Iterator[tuple[int, dict[str, Values]]]:
    """Yield (offset in the file, name -> values) of each tf.Example. Raises ValueError, naming the file and offset."""
    for offset, content in read_records(path):
        try:
            example = decode_example(content)
        except ValueError as error:
            raise malformed(path, f"the record at byte {offset} is no tf.Example: {error}") from error
        yield offset, example


def masked_crc(data: bytes) -> int:
    """The checksum that TFRecord stores: CRC-32C, rotated and shifted so that data may contain checksums itself."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C of `data`.

    The data is cut into lanes that are summed side by side, and neighbours are joined until one is left:

        crc(a b) = crc(a) advanced over as many zero bytes as b is long  xor  crc(b)
    """
    message = ALL_ONES + data
    doublings = len(message).bit_length() // 2
    length = 1 << doublings
    padded = np.zeros(-(-len(message) // length) * length, np.uint8)
    padded[-len(message) :] = np.frombuffer(message, np.uint8)  # zeros at the beginning change nothing
    states = np.zeros(len(padded) // length, np.uint32)
    table = _byte_table()
    for byte in np.ascontiguousarray(padded.reshape(-1, length).T):
        states = table[(states ^ byte) % 256] ^ states // 256
    while len(states) > 1:
        states = np.concatenate([np.zeros(len(states) % 2, np.uint32), states])
        states = _advance(states[0::2], _zero_bytes(doublings)) ^ states[1::2]
        doublings += 1
    return int(states[0]) ^ 0xFFFFFFFF


@cache
def _byte_table() -> NDArray[np.uint32]:
    """[256] what each byte leaves in the register."""
    states = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        states = (states >> 1) ^ (states & 1) * POLYNOMIAL
    return states.astype(np.uint32)


@cache
def _zero_bytes(doublings: int) -> NDArray[np.uint32]:
    """[32] where each bit of the register goes when 2 ** doublings zero bytes are read."""
    if doublings:
        half = _zero_bytes(doublings - 1)
        return _advance(half, half)
    bits = np.array([1 << place for place in range(32)], np.uint32)
    return (_byte_table()[bits % 256] ^ bits // 256).astype(np.uint32)


def _advance(states: NDArray[np.uint32], operator: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Apply a linear operator [32] to registers [n]."""
    bits = np.unpackbits(states.astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    return np.bitwise_xor.reduce(bits * operator, axis=1)


def decode_example(content: bytes) -> dict[str, Values]:
    """Decode a serialised tf.Example. Raises ValueError, without a place, where it is none."""
    entries = [entry for features in _messages(content, 1) for entry in _messages(features, 1)]
    return {_name(entry): _values(entry) for entry in entries}


def _name(entry: bytes) -> str:
    """The key of an entry of the map of features."""
    names = _messages(entry, 1)
    _need(len(names) == 1, "a feature has no name")
    return names[0].decode("utf-8")


def _values(entry: bytes) -> Values:
    """The value of an entry of the map of features: one of three kinds of lists."""
    lists = [(kind, content) for feature in _messages(entry, 2) for kind, _, content in _fields(feature)]
    _need(len(lists) < 2, "a feature holds lists of two kinds")
    match lists:
        case [(1, bytes() as content)]:
            return _messages(content, 1)
        case [(2, bytes() as content)]:
            return np.frombuffer(b"".join(_packed(content, FIXED32)), "<f4").astype(np.float32)
        case [(3, bytes() as content)]:
            return _varints(b"".join(_packed(content, VARINT)))
        case []:
            return []
    raise ValueError("a feature is neither bytes, floats nor integers")


def _packed(content: bytes, single: int) -> list[bytes]:
    """Parts of a repeated field of numbers, which may be stored together or one by one."""
    parts = [(wire, part) for number, wire, part in _fields(content) if number == 1]
    _need(all(wire in (BYTES, single) for wire, _ in parts), "a list of numbers is stored as something else")
    return [part for _, part in parts]


def _varints(data: bytes) -> NDArray[np.int64]:
    """Integers of seven bits per byte, the lowest first; the last byte of each has no eighth bit."""
    stream = np.frombuffer(data, np.uint8)
    if not len(stream):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(stream < 0x80)
    starts = np.concatenate([[0], ends + 1])[:-1]
    lengths = ends + 1 - starts
    is_whole = len(ends) > 0 and ends[-1] == len(stream) - 1 and lengths.max() <= LONGEST_VARINT
    _need(bool(is_whole), "an integer is cut off")
    places = np.arange(len(stream)) - np.repeat(starts, lengths)
    parts = (stream & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.add.reduceat(parts, starts).view(np.int64)


def _messages(content: bytes, number: int) -> list[bytes]:
    """All fields of this number, which must be bytes, texts or messages."""
    found = [(wire, part) for field, wire, part in _fields(content) if field == number]
    _need(all(wire == BYTES for wire, _ in found), f"field {number} is stored as something else")
    return [part for _, part in found]


def _fields(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Split a message into (field number, wire type, content)."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        start, wire = position, key & 7
        match wire:
            case 0:  # VARINT
                _, position = _varint(content, position)
            case 1:  # FIXED64
                position += 8
            case 2:  # BYTES
                length, start = _varint(content, position)
                position = start + length
            case 5:  # FIXED32
                position += 4
            case _:
                raise ValueError(f"a field has the unknown wire type {wire}")
        _need(position <= len(content), "a field is cut off")
        yield key >> 3, wire, content[start:position]


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """An integer and the position after it."""
    value = 0
    for place, byte in enumerate(content[position : position + LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, position + place + 1
    raise ValueError("an integer is cut off")


def _need(is_right: bool, problem: str) -> None:
    if not is_right:
        raise ValueError(problem)
