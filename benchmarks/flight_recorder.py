"""What the flight recorder costs: ways to pack an image, and a whole request of two cameras of 360 x 640.

    python -m benchmarks.flight_recorder

Images are of the simulated SO-101, as rendered and with the noise of a sensor.
"""

import io
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.envs.so101 import So101Env
from molmoact2.serving.exchange import Exchange, Question
from molmoact2.serving.flight import FlightRecorder, PolicyIdentity
from molmoact2.serving.flight.pictures import pack_image
from molmoact2.types import ActionChunk, Observation

SIZE = (360, 640)
NUM_REQUESTS = 30
NOISE_LEVELS = 3.0
"""Standard deviation of the noise, of 255 levels."""
NOBODY = PolicyIdentity(
    name="nobody", fingerprint="sha256:0", dtype="float32", device="cpu", num_threads=1, torch="", molmoact2=""
)


def pillow(image: np.ndarray, kind: str, **options: object) -> bytes:
    """The image as Pillow writes it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


PACKERS: Mapping[str, Callable[[np.ndarray], bytes]] = {
    "differences, runs (ours)": pack_image,
    "zlib, level 1": lambda image: zlib.compress(image.tobytes(), 1),
    "PNG, level 1": lambda image: pillow(image, "png", compress_level=1),
    "lossless WebP, method 0": lambda image: pillow(image, "webp", lossless=True, quality=0, method=0),
}


def film() -> list[dict[str, np.ndarray]]:
    """What the cameras see of an arm that moves."""
    world, random = So101Env(image_size=SIZE), np.random.default_rng(0)
    world.reset(seed=0, task="pick")
    frames = []
    for _ in range(NUM_REQUESTS):
        observation = world.observe()
        frames.append(dict(observation.images))
        world.step(observation.state + random.normal(0, 3, 6).astype(np.float32))
    return frames


def noisy(frames: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """The same with noise in every pixel."""
    random = np.random.default_rng(1)
    return [
        {
            name: np.clip(image + random.normal(0, NOISE_LEVELS, image.shape).round(), 0, 255).astype(np.uint8)
            for name, image in frame.items()
        }
        for frame in frames
    ]


def exchange(number: int, images: Mapping[str, np.ndarray]) -> Exchange:
    """A request with these images."""
    observation = Observation(images=images, state=np.zeros(6, np.float32), instruction="pick up the red cube")
    return Exchange(
        number=number,
        session="session",
        client="benchmark",
        dialect="own",
        request=str(number),
        question=Question(observation=observation, embodiment=SO101_TABLETOP.tag, options={}, seed=number),
        chunk=ActionChunk(actions=np.zeros((16, 6), np.float32)),
        refusal=None,
        batch=number,
        episode=0,
        arrived_at=0.0,
        queue_s=0.0,
        inference_s=0.0,
        total_s=0.0,
    )


def main() -> None:
    """Measure and print."""
    rendered = film()
    for name, frames in (("as rendered", rendered), (f"noise of {NOISE_LEVELS:g} levels", noisy(rendered))):
        images = [image for frame in frames for image in frame.values()]
        print(f"{name}, {images[0].nbytes / 1e3:.0f} kB an image")
        for packer, pack in PACKERS.items():
            began = time.process_time()
            sizes = [len(pack(image)) for image in images]
            seconds = (time.process_time() - began) / len(images)
            print(f"  {packer:28}{np.mean(sizes) / 1e3:6.0f} kB  {1000 * seconds:5.1f} ms of one core")
        calls = []
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            with FlightRecorder(folder, NOBODY) as recorder:
                for number, frame in enumerate(frames):
                    told = time.perf_counter()
                    recorder.exchanged(exchange(number, frame))
                    calls.append(time.perf_counter() - told)
            seconds = (time.process_time() - began) / NUM_REQUESTS
            size = recorder.num_bytes / NUM_REQUESTS
            print(
                f"  a request of two cameras: {size / 1e6:.2f} MB, {1000 * seconds:.1f} ms of one core beside the "
                f"server, which waits {1e6 * np.median(calls):.0f} µs"
            )


if __name__ == "__main__":
    main()
