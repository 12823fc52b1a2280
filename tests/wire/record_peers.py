"""Record what other projects' clients and servers send: run once, by hand, where their packages are installed.

    python tests/wire/record_peers.py

Made with json_numpy 2.1.1, openpi-client 0.1.2 and vla-eval 0.8.0. The tests read the files without those packages.
"""

from pathlib import Path

import json_numpy
import numpy as np
import vla_eval.protocol.numpy_codec as harness_arrays
from openpi_client import msgpack_numpy
from peer_cases import ACTIONS, IMAGE, STATE
from vla_eval.protocol.messages import Message, MessageType, make_hello_payload, pack_message

HERE = Path(__file__).parent / "recorded"


def frame(kind: MessageType, payload: dict, seq: int, image_format: str = "png") -> bytes:
    harness_arrays.set_image_format(image_format)  # type: ignore[arg-type]
    return pack_message(Message(type=kind, payload=payload, seq=seq, timestamp=1.7e9))


def seen(image_format: str) -> bytes:
    payload = {"images": {"agentview": IMAGE}, "states": STATE, "task_description": "stack the cubes"}
    return frame(MessageType.OBSERVATION, payload, 2, image_format)


FILES = {
    "json_numpy_droid.json": json_numpy.dumps(
        {"external_cam": IMAGE, "wrist_cam": IMAGE, "instruction": "wave", "state": STATE, "num_steps": 10}
    ).encode(),
    "json_numpy_answer.json": json_numpy.dumps({"actions": ACTIONS, "dt_ms": np.float64(41.5)}).encode(),
    "openpi_libero.msgpack": msgpack_numpy.packb(
        {"observation/image": IMAGE, "observation/state": STATE, "observation/grip": np.float32(0.5), "prompt": "wave"}
    ),
    "openpi_answer.msgpack": msgpack_numpy.packb({"actions": ACTIONS, "server_timing": {"infer_ms": 63.0}}),
    "harness_hello.msgpack": frame(MessageType.HELLO, make_hello_payload(benchmark="libero"), 0),
    "harness_start.msgpack": frame(MessageType.EPISODE_START, {"task": {"name": "stack", "suite": "libero"}}, 1),
    "harness_png.msgpack": seen("png"),
    "harness_raw.msgpack": seen("raw"),
    "harness_jpeg.msgpack": seen("jpeg"),
    "harness_action.msgpack": frame(MessageType.ACTION, {"actions": ACTIONS[0]}, 2),
    "harness_end.msgpack": frame(MessageType.EPISODE_END, {"metrics": {"success": True}, "steps": 17}, 3),
}

if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for name, content in FILES.items():
        (HERE / name).write_bytes(content)
