"""Our own protocol: every message survives the trip, and nothing else gets in."""

import struct
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from message_cases import MESSAGES, messages, same

from molmoact2.types import Committed, Observation
from molmoact2.wire.codec import ARRAY, IMAGE, KINDS, decode, encode
from molmoact2.wire.images import encode_jpeg
from molmoact2.wire.limits import Limits, WireError
from molmoact2.wire.messages import Answer, Ask, Control, Hello, Message, Refusal, Reset, Telemetry, Thought

LIMITS = Limits()
GRADIENT = np.fromfunction(lambda y, x, c: 2 * y + x + 20 * c, (40, 60, 3)).astype(np.uint8)


def ask(**changes: object) -> Ask:
    """A small question."""
    observation = Observation(images={"front": GRADIENT}, state=np.zeros(6, np.float32), instruction="wave")
    return replace(Ask(id=1, observation=observation, observed_at=2.5), **changes)


def fields_of(message: Message) -> dict:
    """The map on the wire, its extensions as they are."""
    return msgpack.unpackb(encode(message))


def refused(fields: object) -> str:
    """What is said about a map."""
    with pytest.raises(WireError) as caught:
        decode(msgpack.packb(fields), LIMITS)
    return str(caught.value)


@given(messages)
def test_every_message_survives_the_trip(message: Message):
    assert same(decode(encode(message), LIMITS), message)


@settings(max_examples=10)
@given(st.data())
def test_every_field_is_needed_and_none_is_added(data: st.DataObject):
    for strategy in MESSAGES.values():
        fields = fields_of(data.draw(strategy))
        for name in fields:
            assert name in refused({key: value for key, value in fields.items() if key != name})
        assert "surprise" in refused({**fields, "surprise": 1})


@pytest.mark.parametrize("wrong", [[1, 2], {"a": 1}, b"bytes", -1, float("nan"), msgpack.ExtType(7, b"?")], ids=repr)
@settings(max_examples=5)
@given(data=st.data())
def test_no_field_takes_what_it_is_not(data: st.DataObject, wrong: object):
    for kind, strategy in MESSAGES.items():
        fields = fields_of(data.draw(strategy))
        takes = {"notes", "timing", "observed_at", "time", "image_encodings", "modes", "robots"}
        for name in fields.keys() - takes:
            assert refused({**fields, name: wrong}), (kind, name)


def test_the_bytes_stay_what_they_are():
    """Version 1 of the protocol, byte for byte: a change here is another version."""
    assert encode(Hello(client="arm")) == bytes.fromhex(
        "84a474797065a568656c6c6fa6636c69656e74a361726da870726f746f636f6c01a773657373696f6ec0"
    )
    told = Committed(actions=np.array([[1.5, -2]], np.float32), delay=1)
    after_name = encode(ask(committed=told)).partition(b"\xa9committed")[2]
    header = bytes.fromhex("c900000020013c663402") + struct.pack("<5I", 1, 2, 0, 0, 0)
    assert after_name == b"\x82\xa7actions" + header + struct.pack("<2f", 1.5, -2) + b"\xa5delay\x01"


def test_arrays_are_views_that_nobody_writes():
    found = decode(encode(ask()), LIMITS)
    assert isinstance(found, Ask)
    image = found.observation.images["front"]  # type: ignore[call-overload]
    assert not image.flags.writeable
    assert not image.flags.owndata
    assert image.flags.aligned


def test_arrays_of_any_layout_are_written_row_by_row():
    observation = replace(ask().observation, state=np.arange(6, dtype=">f4")[::-2])
    turned = Committed(actions=np.arange(12, dtype=np.float32).reshape(3, 4).T, delay=0)
    found = decode(encode(ask(observation=observation, committed=turned)), LIMITS)
    assert isinstance(found, Ask)
    assert found.committed is not None
    np.testing.assert_array_equal(found.committed.actions, turned.actions)
    assert found.observation.state.tolist() == [5.0, 3.0, 1.0]
    assert found.observation.state.dtype == np.dtype("<f4")


def test_images_travel_as_jpeg():
    message = ask()
    small = encode(message, jpeg_quality=90)
    found = decode(small, LIMITS)
    assert isinstance(found, Ask)
    image = found.observation.images["front"]  # type: ignore[call-overload]
    assert len(small) < len(encode(message)) / 2
    assert np.abs(image.astype(int) - GRADIENT).max() < 12


def with_images(images: dict) -> dict:
    fields = fields_of(ask())
    return {**fields, "observation": {**fields["observation"], "images": images}}


def test_images_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr("molmoact2.wire.fields.decode_image", lambda *given: calls.append(given))
    jpeg = msgpack.ExtType(IMAGE, encode_jpeg(GRADIENT, 80))
    assert "images" in refused(with_images({f"{i}": jpeg for i in range(LIMITS.num_images + 1)}))
    assert not calls


def test_a_compressed_image_is_no_array():
    fields = fields_of(Answer(id=0, observed_at=0.0, actions=np.ones((1, 1), np.float32), seed=0, timing={}))
    assert "actions" in refused({**fields, "actions": msgpack.ExtType(IMAGE, encode_jpeg(GRADIENT, 80))})


def array(dtype: bytes, sizes: tuple[int, ...], data: bytes, num_dims: int | None = None) -> msgpack.ExtType:
    padded = (*sizes, 0, 0, 0, 0, 0)[:5]
    return msgpack.ExtType(ARRAY, struct.pack("<3sB5I", dtype, num_dims or len(sizes), *padded) + data)


@pytest.mark.parametrize(
    ("actions", "complaint"),
    [
        (array(b"|O8", (1, 1), b"x" * 8), "dtype"),
        (array(b"|V4", (1, 1), b"x" * 4), "dtype"),
        (array(b"<c8", (1, 1), b"x" * 8), "dtype"),
        (array(b"<U1", (1, 1), b"x" * 4), "dtype"),
        (array(b"<M8", (1, 1), b"x" * 8), "dtype"),
        (array(b">f4", (1, 1), b"x" * 4), "dtype"),
        (array(b"\xff\xfe\x00", (1, 1), b"x" * 4), "dtype"),
        (array(b"<f4", (1, 2), b"x" * 4), "takes 8 bytes, got 4"),
        (array(b"<f4", (1, 1), b"x" * 8), "takes 4 bytes, got 8"),
        (array(b"<f4", (2**31, 2**31), b"x" * 4), "shape"),
        (array(b"<f4", (100, 100), b"x" * 40000), "4096 numbers"),
        (array(b"<f4", (1, 1, 1, 1, 1), b"x" * 4), "shape"),
        (array(b"<f4", (1, 1), b"x" * 4, num_dims=1), "dimensions"),
        (array(b"<f4", (1, 1), b"x" * 4, num_dims=200), "dimensions"),
        (array(b"<f8", (1, 1), b"\0" * 8), "actions"),
        (array(b"<f4", (1,), b"\0" * 4), "actions"),
        (array(b"<f4", (1, 1), struct.pack("<f", float("inf"))), "finite"),
        (array(b"<f4", (0, 3), b""), "one row"),
        (array(b"|b1", (1, 1), b"\x02"), "0 and 1"),
        (msgpack.ExtType(ARRAY, b"short"), "Extension"),
        (msgpack.ExtType(3, b""), "Extension"),
    ],
)
def test_arrays_are_only_what_they_say(actions: msgpack.ExtType, complaint: str):
    fields = fields_of(Answer(id=0, observed_at=0.0, actions=np.ones((1, 1), np.float32), seed=0, timing={}))
    assert complaint in refused({**fields, "actions": actions})


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (ask(num_steps=0), "num_steps"),
        (ask(num_action_steps=0), "num_action_steps"),
        (ask(deadline_s=0.0), "deadline_s"),
        (ask(observed_at=float("inf")), "observed_at"),
        (ask(seed=-1), "seed"),
        (ask(seed=2**63), "seed"),
        (ask(id=True), "id"),
        (ask(think=1), "think"),
        (ask(mode="fast"), "mode"),
        (ask(committed=Committed(actions=np.zeros((2, 1), np.float32), delay=3)), "delay"),
        (ask(observation=replace(ask().observation, images=[GRADIENT])), "images"),
        (ask(observation=replace(ask().observation, images={"front": GRADIENT / 255})), "uint8"),
        (ask(observation=replace(ask().observation, state=np.array([np.nan]))), "state"),
        (ask(observation=replace(ask().observation, instruction=" ")), "instruction"),
        (Refusal(code="busy", message="", retry_after_s=-1.0), "retry_after_s"),
        (Control(command="jump"), "command"),  # type: ignore[arg-type]
        (
            Answer(
                id=0,
                observed_at=0.0,
                actions=np.zeros((1, 1), np.float32),
                seed=0,
                timing={},
                thought=Thought(codes=np.zeros(2, np.int64), changed=np.zeros(3, np.bool_)),
            ),
            "changed",
        ),
        (
            Telemetry(
                time=0.0,
                mode="full",
                executed=np.zeros((2, 1), np.float32),
                measured=np.zeros((1, 1), np.float32),
                times=np.zeros(2),
            ),
            "measured",
        ),
    ],
)
def test_what_nobody_would_read_is_not_written(message: Message, field: str):
    with pytest.raises(WireError, match=field):
        encode(message)


def test_flow_steps_are_limited_by_whoever_reads():
    data = encode(ask(num_steps=65))
    with pytest.raises(WireError, match="num_steps"):
        decode(data, LIMITS)
    assert isinstance(decode(data, replace(LIMITS, num_flow_steps=65)), Ask)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not one msgpack value"),
        (b"\xc0", "map"),
        (msgpack.packb([1]), "map"),
        (msgpack.packb({}), "type"),
        (msgpack.packb({"type": "dance"}), "type"),
        (msgpack.packb({"type": ["reset"], "seed": None}), "type"),
        (encode(Reset()) + b"\xc0", "not one msgpack value"),
        (encode(Reset())[:-1], "not one msgpack value"),
        (b"\x83\xa4type\xa5reset\xa4seed\xc0\xa4seed\x01", "twice"),
        (b"\x82\xa4type\xa5reset\xa4se\xff\xfe\xc0", "not one msgpack value"),
        (msgpack.packb({"type": "reset", b"seed": None}), "seed"),
        (msgpack.packb({"type": "reset", "seed": 2**63}), "seed"),
        (msgpack.packb({"type": "hello", "client": "x" * 2001, "protocol": 1, "session": None}), "2000"),
        (b"\x91" * 9 + b"\xc0", "nested"),
        (b"\x91" * 5000 + b"\xc0", "not one msgpack value"),
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes, complaint: str):
    with pytest.raises(WireError, match=complaint):
        decode(data, LIMITS)


def test_a_long_message_is_not_looked_at():
    with pytest.raises(WireError, match="10 bytes, got"):
        decode(encode(ask()), replace(LIMITS, message_bytes=10))


def test_errors_name_the_field_what_came_and_what_is_allowed():
    with pytest.raises(WireError) as caught:
        decode(msgpack.packb({**fields_of(Reset()), "seed": "seven"}), LIMITS)
    assert str(caught.value) == "reset.seed: must be a whole number from 0 to 2**63 - 1, got 'seven'."
    assert caught.value.code == "malformed"


def test_names_of_messages_are_lower_case_words():
    assert set(KINDS.values()) == {"hello", "ask", "reset", "telemetry", "welcome", "answer", "refusal", "control"}
