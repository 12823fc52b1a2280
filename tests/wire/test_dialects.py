"""We understand what other projects send, and they what we send: recorded, and live where they are installed.

`record_peers.py` made the recordings, `peer_cases.py` has what is in them.
"""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from peer_cases import ACTIONS, IMAGE, STATE

from molmoact2.wire.dialects import harness, json_numpy, openpi
from molmoact2.wire.limits import Limits, WireError

RECORDED = Path(__file__).parent / "recorded"
LIMITS = Limits()


def recorded(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def check_array(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    assert not found.flags.writeable


def test_json_numpy_is_read_as_recorded():
    found = json_numpy.loads(recorded("json_numpy_droid.json"), LIMITS)
    assert found.keys() == {"external_cam", "wrist_cam", "instruction", "state", "num_steps"}
    assert (found["instruction"], found["num_steps"]) == ("wave", 10)
    check_array(found["external_cam"], IMAGE)
    check_array(found["state"], STATE)
    answer = json_numpy.loads(recorded("json_numpy_answer.json"), LIMITS)
    check_array(answer["actions"], ACTIONS)
    assert answer["dt_ms"] == 41.5


def test_json_numpy_is_written_as_recorded():
    answer = {"actions": ACTIONS, "dt_ms": np.float64(41.5)}
    assert json_numpy.dumps(answer) == recorded("json_numpy_answer.json")


def test_json_numpy_with_the_package():
    package = pytest.importorskip("json_numpy")
    value = {"image": IMAGE, "flags": np.array([True, False]), "one": np.float32(0.5), "none": np.zeros((0, 3), "<i8")}
    theirs, ours = package.loads(json_numpy.dumps(value)), json_numpy.loads(package.dumps(value).encode(), LIMITS)
    for name in ("image", "flags", "none"):
        np.testing.assert_array_equal(theirs[name], value[name])
        check_array(ours[name], value[name])
    assert (theirs["one"], ours["one"]) == (0.5, 0.5)


def test_openpi_is_read_as_recorded():
    found = openpi.unpack(recorded("openpi_libero.msgpack"), LIMITS)
    check_array(found["observation/image"], IMAGE)
    check_array(found["observation/state"], STATE)
    assert (found["observation/grip"], found["prompt"]) == (0.5, "wave")


def test_openpi_is_written_as_recorded():
    answer = {"actions": ACTIONS, "server_timing": {"infer_ms": 63.0}}
    assert openpi.pack(answer) == recorded("openpi_answer.msgpack")


def test_openpi_with_the_package():
    package = pytest.importorskip("openpi_client.msgpack_numpy")
    value = {"image": IMAGE, "actions": ACTIONS, "one": np.int64(7), "list": [1, 2.5, None, "a"]}
    theirs, ours = package.unpackb(openpi.pack(value)), openpi.unpack(package.packb(value), LIMITS)
    for name in ("image", "actions"):
        np.testing.assert_array_equal(theirs[name], value[name])
        check_array(ours[name], value[name])
    assert (theirs["one"], ours["one"], ours["list"]) == (7, 7, [1, 2.5, None, "a"])


def test_harness_frames_are_read_as_recorded():
    hello = harness.unpack(recorded("harness_hello.msgpack"), LIMITS)
    assert (hello.type, hello.seq, hello.timestamp) == ("hello", 0, 1.7e9)
    assert hello.payload["protocol_version"] == harness.HARNESS_PROTOCOL
    assert harness.unpack(recorded("harness_start.msgpack"), LIMITS).payload["task"]["suite"] == "libero"
    assert harness.unpack(recorded("harness_end.msgpack"), LIMITS).payload == {
        "metrics": {"success": True},
        "steps": 17,
    }
    check_array(harness.unpack(recorded("harness_action.msgpack"), LIMITS).payload["actions"], ACTIONS[0])


@pytest.mark.parametrize("image_format", ["png", "raw", "jpeg"])
def test_harness_images_are_read_as_recorded(image_format: str):
    payload = harness.unpack(recorded(f"harness_{image_format}.msgpack"), LIMITS).payload
    check_array(payload["states"], STATE)
    image = payload["images"]["agentview"]
    assert image.shape == IMAGE.shape
    assert image_format == "jpeg" or np.array_equal(image, IMAGE)


def test_harness_is_written_as_recorded():
    frame = harness.Frame(type="action", payload={"actions": ACTIONS[0]}, seq=2, timestamp=1.7e9)
    assert harness.pack(frame) == recorded("harness_action.msgpack")


def test_harness_with_the_package():
    package = pytest.importorskip("vla_eval.protocol.messages")
    payload = {"images": {"wrist": IMAGE}, "states": STATE, "task_description": "wave", "gain": np.float32(0.5)}
    sent = package.pack_message(package.Message(type=package.MessageType.OBSERVATION, payload=payload, seq=9))
    ours = harness.unpack(sent, LIMITS)
    check_array(ours.payload["images"]["wrist"], IMAGE)
    assert (ours.type, ours.seq, ours.payload["gain"]) == ("observation", 9, 0.5)
    theirs = package.unpack_message(harness.pack(ours))
    assert theirs.type is package.MessageType.OBSERVATION
    np.testing.assert_array_equal(theirs.payload["images"]["wrist"], IMAGE)


def json_array(**changes: object) -> bytes:
    return json.dumps({"__numpy__": b64encode(b"\0" * 4).decode(), "dtype": "<f4", "shape": [1], **changes}).encode()


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b'{"a": NaN}', "finite"),
        (b'{"a": [-Infinity]}', "finite"),
        (b"1e999", "finite"),
        (b"1" * 5000, "JSON"),
        (b"18446744073709551616", "64 bits"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[1] 2", "JSON"),
        (b'{"a": "\xff"}', "JSON"),
        ("[1]".encode("utf-16"), "JSON"),
        (b"\xef\xbb\xbf[1]", "JSON"),
        (b'["\\ud800"]', "half a character"),
        (b'{"\\ud800": 1}', "half a character"),
        (b"[" * 9 + b"1" + b"]" * 9, "nested"),
        (b"[" * 60000, "JSON"),
        (b"[" + b"1," * 300 + b"1]", "256 entries"),
        (b"[" + b"[]," * 100000 + b"[]]", "entries"),
        (b"", "JSON"),
        (json_array(dtype="|O"), "dtype"),
        (json_array(dtype=[["a", "<f4"]]), "dtype"),
        (json_array(dtype="<c8"), "dtype"),
        (json_array(dtype="float32"), "dtype"),
        (json_array(shape=[2]), "bytes"),
        (json_array(shape=[-1]), "shape"),
        (json_array(shape=[True]), "shape"),
        (json_array(shape="1"), "shape"),
        (json_array(shape=[0, 2**62, 2**62]), "shape"),
        (json_array(__numpy__="AAAA!AAA"), "base64"),
        (json_array(__numpy__="AAAAA"), "base64"),
        (json_array(__numpy__="ÄÖ"), "base64"),
        (json_array(__numpy__=5), "__numpy__"),
        (json_array(extra=5), "extra"),
        (b'{"__numpy__": ""}', "dtype"),
        (json_array(__numpy__=b64encode(np.float32("nan").tobytes()).decode(), shape=[]), "finite"),
    ],
)
def test_json_that_is_refused(body: bytes, complaint: str):
    with pytest.raises(WireError, match=complaint):
        json_numpy.loads(body, LIMITS)


def test_json_that_is_not_finite_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        json_numpy.dumps({"dt_ms": float("nan")})


def openpi_array(**changes: object) -> bytes:
    value = {"__ndarray__": True, "data": b"\0" * 4, "dtype": "<f4", "shape": [1], **changes}
    return msgpack.packb({key.encode(): inner for key, inner in value.items()})


def openpi_number(data: object, dtype: object) -> bytes:
    return msgpack.packb({b"__npgeneric__": True, b"data": data, b"dtype": dtype})


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (openpi_array(dtype="|O"), "dtype"),
        (openpi_array(dtype="|V4"), "dtype"),
        (openpi_array(dtype="<c8"), "dtype"),
        (openpi_array(dtype=["<f4"]), "dtype"),
        (openpi_array(data="text"), "bytes"),
        (openpi_array(shape=[10**6]), "numbers"),
        (openpi_array(shape=[5000, 5000, 3]), "pixels"),
        (openpi_array(extra=1), "keys"),
        (openpi_number(300, "|u1"), "fit"),
        (openpi_number(float("nan"), "<f4"), "finite"),
        (openpi_number("1", "<f4"), "number"),
        (openpi_number(1, "|O"), "dtype"),
        (openpi_number(1e300, "<f4"), "finite"),
        (openpi_number(1e300, "<i8"), "fit"),
        (msgpack.packb({b"__npgeneric__": True}), "keys"),
        (msgpack.packb(msgpack.ExtType(5, b"")), "Extension"),
        (b"\x81\x01\x02", "msgpack"),
    ],
)
def test_openpi_that_is_refused(data: bytes, complaint: str):
    with pytest.raises(WireError, match=complaint):
        openpi.unpack(data, LIMITS)


def frame(**changes: object) -> bytes:
    return msgpack.packb({"type": "observation", "payload": {}, "seq": 1, "timestamp": 0.5, **changes})


def image(**changes: object) -> bytes:
    value = {"__image__": True, "format": "raw", "dtype": "|u1", "data": b"\0" * 12, "shape": [2, 2, 3], **changes}
    return frame(payload={"images": {"a": {key: inner for key, inner in value.items() if inner is not None}}})


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (msgpack.packb([]), "frame"),
        (msgpack.packb({"type": "hello"}), "frame"),
        (frame(extra=1), "frame"),
        (frame(type="dance"), "type"),
        (frame(type=["hello"]), "type"),
        (frame(payload=[]), "payload"),
        (frame(payload={b"a": 1}), "payload"),
        (frame(seq="1"), "seq"),
        (frame(seq=True), "seq"),
        (frame(timestamp=None), "seconds"),
        (frame(timestamp=float("inf")), "finite"),
        (image(dtype="|O"), "dtype"),
        (image(dtype=None), "map of"),
        (image(format="gif", dtype=None), "png"),
        (image(format="png", dtype=None), "JPEG or PNG"),
        (image(format="png", dtype=None, data="text"), "png"),
        (image(shape=[4000, 4000, 3]), "pixels"),
        (image(shape=[2, 3, 3]), "bytes"),
        (frame(payload={"a": {"__ndarray__": True, "data": b"", "dtype": "|O", "shape": []}}), "dtype"),
        (frame(payload={"a": {"__ndarray__": True}}), "map of"),
    ],
)
def test_harness_frames_that_are_refused(data: bytes, complaint: str):
    with pytest.raises(WireError, match=complaint):
        harness.unpack(data, LIMITS)


def test_harness_images_are_counted():
    one = msgpack.unpackb(image())["payload"]["images"]["a"]
    with pytest.raises(WireError, match="8 images"):
        harness.unpack(frame(payload={"history": [one] * 9}), LIMITS)


def test_harness_images_have_the_shape_they_say():
    png = msgpack.unpackb(recorded("harness_png.msgpack"))["payload"]["images"]["agentview"]
    with pytest.raises(WireError, match="said to have"):
        harness.unpack(frame(payload={"images": {"a": {**png, "shape": [1, 2, 3]}}}), LIMITS)
