"""RLDS data sets in small, written with plain protobuf and a checksum that goes bit by bit."""

import json
import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def slow_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def record(content: bytes, masked) -> bytes:
    """A framed record; `masked` is the checksum function."""
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked(length)) + content + struct.pack("<I", masked(content))


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Any, *, packed: bool = True) -> bytes:
    """A tf.Feature of bytes, floats or integers."""
    if isinstance(values, list):
        return message(1, b"".join(message(1, value) for value in values))
    if values.dtype.kind == "f":
        floats = values.astype("<f4")
        single = b"".join(varint(1 << 3 | 5) + value.tobytes() for value in floats)
        return message(2, message(1, floats.tobytes()) if packed else single)
    numbers = [varint(int(value)) for value in values]
    single = b"".join(varint(1 << 3) + number for number in numbers)
    return message(3, message(1, b"".join(numbers)) if packed else single)


def example(features: Mapping[str, Any], *, packed: bool = True) -> bytes:
    """A serialised tf.Example."""
    entries = [message(1, name.encode()) + message(2, feature(v, packed=packed)) for name, v in features.items()]
    return message(1, b"".join(message(1, entry) for entry in entries))


def encoded(image: np.ndarray, image_format: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format=image_format)
    return buffer.getvalue()


def tensor(*dimensions: int, dtype: str = "float32") -> dict[str, Any]:
    shape = {"dimensions": [str(side) for side in dimensions]} if dimensions else {}
    return {"tensor": {"shape": shape, "dtype": dtype, "encoding": "none"}}


IMAGE = {"image": {"shape": {"dimensions": ["16", "24", "3"]}, "dtype": "uint8", "encodingFormat": "png"}}
STEP_FEATURES = {
    "action": tensor(7),
    "is_last": tensor(dtype="bool"),
    "language_instruction": {"text": {}},
    "depth": {"tensor": {"shape": {}, "dtype": "float32", "encoding": "zlib"}},
    "observation": {
        "featuresDict": {"features": {"state": tensor(7), "image_0": IMAGE, "image_1": IMAGE}},
    },
}


def make_episode(number: int, length: int) -> dict[str, Any]:
    """Values of all steps, by their names in a record."""
    rng = np.random.default_rng(number)
    ramp = np.arange(length)[:, None, None, None] * 3 + 40 * number + np.zeros((16, 24, 3))
    return {
        "steps/action": rng.normal(size=7 * length).astype(np.float32),
        "steps/observation/state": rng.normal(size=7 * length).astype(np.float32),
        "steps/is_last": (np.arange(length) == length - 1).astype(np.int64),
        "steps/language_instruction": [f"do task {number % 2}".encode()] * length,
        "steps/observation/image_0": [encoded(image) for image in ramp.astype(np.uint8)],
        "steps/observation/image_1": [encoded(np.zeros((16, 24, 3), np.uint8))] * length,
        "episode_metadata/file_path": [b"/somewhere"],
    }


def write_rlds(
    folder: Path,
    shards: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    masked,
    *,
    name: str = "toy",
    step_features: Mapping[str, Any] = STEP_FEATURES,
) -> Path:
    """Write a data set: split -> files -> episodes."""
    folder.mkdir(parents=True)
    steps = {"sequence": {"feature": {"featuresDict": {"features": step_features}}, "length": "-1"}}
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": {"steps": steps}}}))
    splits = [{"name": split, "shardLengths": [str(len(file)) for file in files]} for split, files in shards.items()]
    (folder / "dataset_info.json").write_text(json.dumps({"name": name, "splits": splits}))
    for split, files in shards.items():
        for number, file in enumerate(files):
            path = folder / f"{name}-{split}.tfrecord-{number:05d}-of-{len(files):05d}"
            path.write_bytes(b"".join(record(example(episode), masked) for episode in file))
    return folder
