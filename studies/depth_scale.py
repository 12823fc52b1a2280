"""Which scale a depth codec should have: how often codes change where nothing does, and what is lost (docs/depth.md).

    python studies/depth_scale.py run      # every fit and every measurement that is not done yet
    python studies/depth_scale.py table    # what was measured, as Markdown

Each codec is fitted alike: nano's layers but for the first, because the pictures have 128 pixels, and the same maps in
the same order. Needs the recordings of `molmoact2 train nano-so101`, which are simulated again for their depth.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from molmoact2.data.reader import LeRobotDataset
from molmoact2.depth.codec import CodecConfig, DepthCodec, DepthScale, load_codec, save_codec
from molmoact2.depth.fit import FitSettings, fit_codec, store_levels
from molmoact2.depth.scale import resized
from molmoact2.evaluation.depth_fit import HeldOut, Judged, measure_codec, reconstructed
from molmoact2.evaluation.depth_fit_data import spread
from molmoact2.evaluation.simulated_depth import open_simulated_depth

RECORDINGS, OUTPUT = Path("runs/nano-so101/data"), Path("runs/think/depth_scale")
CAMERA = "front"
FITTED, MEASURED = 480, 60
"""Episodes; those to measure on are of the last tenth, the others of the first nine."""
STEPS = 800
LOWEST_ROW = 40
"""Of a picture of 128 rows: what stands above is the arm at rest."""
RELIEF_M = (0.008, 0.06)
"""How much nearer than the table a thing on it is, along the camera's axis."""
WITHIN_M = (0.25, 0.8)
"""Table and arm. Beyond is the floor, which one scale knows and another does not; errors there do not count."""
FIXED = DepthScale(kind="fixed", low=WITHIN_M[0], high=WITHIN_M[1])


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A codec to fit."""

    words: str
    scale: DepthScale
    unit: Literal["m", "inverse"] = "m"
    map_error: Literal["squared", "absolute"] = "squared"
    commitment: float = 0.25


VARIANTS = {
    "frame": Variant(words="each frame, metres", scale=DepthScale(kind="frame")),
    "frame-inverse": Variant(words="each frame, 1/metres", scale=DepthScale(kind="frame"), unit="inverse"),
    "episode": Variant(words="each episode, metres", scale=DepthScale(kind="episode")),
    "fixed": Variant(words="fixed 0.25 to 0.80 m", scale=FIXED),
    "fixed-absolute": Variant(words="fixed, absolute error", scale=FIXED, map_error="absolute"),
    "fixed-committed": Variant(words="fixed, commitment 1", scale=FIXED, commitment=1.0),
}


class Depths:
    """Depth of the chosen episodes; simulated once, kept as tenths of a millimetre."""

    def __init__(self) -> None:
        self.dataset = LeRobotDataset(RECORDINGS)
        count = len(self.dataset.episodes)
        self.fitted = spread(list(range(count * 9 // 10)), FITTED)
        self.measured = spread(list(range(count * 9 // 10, count)), MEASURED)

    def simulate(self) -> None:
        """Write what is not there yet."""
        missing = [index for index in (*self.fitted, *self.measured) if not self._path(index).exists()]
        source = open_simulated_depth(self.dataset) if missing else None
        for index in track(missing, "Simulating"):
            depth = source.episode(self.dataset, self.dataset.episodes[index], CAMERA)
            self._path(index).parent.mkdir(parents=True, exist_ok=True)
            np.save(self._path(index), np.round(np.minimum(depth, 6.5) * 1e4).astype(np.uint16))

    def depth(self, index: int) -> NDArray[np.float32]:
        """[frames, height, width] metres."""
        return np.load(self._path(index)).astype(np.float32) / np.float32(1e4)

    def _path(self, index: int) -> Path:
        return OUTPUT / "depth" / f"{index}.npy"


def in_unit(depth: NDArray[np.float32], unit: str) -> NDArray[np.float32]:
    """Metres as a codec sees them, and back, which is the same."""
    return {"m": lambda: depth, "inverse": lambda: 1 / np.maximum(depth, 1e-3)}[unit]()


def fit(name: str, depths: Depths) -> DepthCodec:
    """Fit a variant, or load it where it is done."""
    variant, folder = VARIANTS[name], OUTPUT / name
    if (folder / "codec").exists():
        return load_codec(folder / "codec")
    folder.mkdir(parents=True, exist_ok=True)
    config = CodecConfig(image_size=160, channels=(8, 16, 32, 64), code_dim=64, scale=variant.scale, unit=variant.unit)
    episodes = (in_unit(depths.depth(index), variant.unit) for index in depths.fitted)
    stored = store_levels(episodes, variant.scale, folder / "levels")
    settings = FitSettings(steps=STEPS, learning_rate=2e-3, map_error=variant.map_error, commitment=variant.commitment)
    codec, log = fit_codec(config, stored.levels, settings=settings, checkpoint=folder / "checkpoint.safetensors")
    np.save(folder / "log.npy", log)
    save_codec(codec, folder / "codec")
    (folder / "levels").unlink()
    return codec


def held_out(depths: Depths) -> Iterator[HeldOut]:
    """The episodes to measure on, in metres."""
    for index in depths.measured:
        images = depths.dataset.episode_images(depths.dataset.episodes[index].episode_index, CAMERA)
        yield HeldOut(depth=depths.depth(index), images=images)


def table_plane(depth: NDArray[np.float32]) -> NDArray[np.float64]:
    """Depth [height, width] of the bare table: of a plane, 1 / depth is linear in the pixel."""
    rows, columns = np.indices(depth.shape)
    terms = np.stack([rows, columns, np.ones_like(rows)], axis=-1).reshape(-1, 3).astype(float)
    inverse = (1 / depth.astype(float)).ravel()
    is_table = rows.ravel() > LOWEST_ROW
    for _ in range(4):
        solution = np.linalg.lstsq(terms[is_table], inverse[is_table], rcond=None)[0]
        is_table = (np.abs(1 / (terms @ solution) - 1 / inverse) < 0.004) & (rows.ravel() > LOWEST_ROW)
    return (1 / (terms @ solution)).reshape(depth.shape)


def things_on_the_table(codec: DepthCodec, depths: Depths) -> dict[str, float]:
    """How much of what things stand out by comes back, at the first frame of each episode; in metres."""
    true, said = [], []
    for index in depths.measured:
        depth = depths.depth(index)
        plane = table_plane(depth[0])
        sources = in_unit(depth, codec.config.unit)
        decoded = in_unit(reconstructed(codec, sources, codec.encode(sources))[:1], codec.config.unit)
        size = codec.config.image_size
        relief = resized((plane - depth[0])[None], size)[0]
        bare = resized(plane[None], size)[0]
        is_below = np.arange(size)[:, None] > LOWEST_ROW * size // depth.shape[1]
        is_thing = (relief > RELIEF_M[0]) & (relief < RELIEF_M[1]) & is_below
        true.append(relief[is_thing])
        said.append((bare - decoded[0])[is_thing])
    relief, decoded = np.concatenate(true), np.concatenate(said)
    return {
        "things_relief": float(relief.mean()),
        "things_error": float(np.abs(decoded - relief).mean()),
        "things_recovered": float((decoded * relief).sum() / (relief * relief).sum()),
    }


def measure(name: str, depths: Depths) -> None:
    """Measure a variant; errors in metres whatever its unit."""
    path = OUTPUT / name / "numbers.json"
    if path.exists():
        return
    codec, unit = fit(name, depths), VARIANTS[name].unit
    judged = Judged(
        unit="m", within=WITHIN_M, seen=lambda depth: in_unit(depth, unit), meant=lambda depth: in_unit(depth, unit)
    )
    quality = measure_codec(codec, held_out(depths), judged=judged)
    path.write_text(json.dumps(quality.as_json() | things_on_the_table(codec, depths), indent=2))


def table() -> str:
    """What was measured, as Markdown."""
    lines = [
        "| scale | flicker, image unchanged | flicker, depth still | all changes | bits | mean error | where something "
        "moves | things come back |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, variant in VARIANTS.items():
        n = json.loads((OUTPUT / name / "numbers.json").read_text())
        lines.append(
            f"| {variant.words} | {n['flicker_unchanged_images']:.1%} | {n['flicker_still_depth']:.1%} | "
            f"{n['code_changes']:.1%} | {n['bits_per_cell']:.2f} | {1000 * n['mean_error']:.1f} mm | "
            f"{1000 * n['moving_mean_error']:.1f} mm | {n['things_recovered']:.0%} |"
        )
    return "\n".join(lines)


def main(command: str, *names: str) -> None:
    """Run or print."""
    if command == "table":
        print(table())
        return
    depths = Depths()
    depths.simulate()
    for name in names or VARIANTS:
        measure(name, depths)
        print(name, (OUTPUT / name / "numbers.json").read_text(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
