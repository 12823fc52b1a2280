"""Makes the pictures of the README from a run: `python docs/images/make.py runs/demo-… docs/images`.

`demo.gif` shows the first film of each task side by side, `report.png` the top of the run's report (needs Chromium).
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

SIZE = (300, 225)
FRAMES_PER_SECOND = 12
REPORT_SIZE = (1280, 1330)
CHROMIUM = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run")


def film(path: Path) -> list[Image.Image]:
    """Its frames, small."""
    with av.open(str(path)) as container:
        every = max(1, round(float(container.streams.video[0].average_rate or 15) / FRAMES_PER_SECOND))
        return [frame.to_image().resize(SIZE, Image.Resampling.LANCZOS)
                for index, frame in enumerate(container.decode(video=0)) if index % every == 0]  # fmt: skip


def side_by_side(films: list[list[Image.Image]], path: Path) -> None:
    """All films at once; one that ends early stands still."""
    length = max(map(len, films)) + FRAMES_PER_SECOND
    rows = [np.hstack([np.asarray(f[min(i, len(f) - 1)]) for f in films]) for i in range(length)]
    # One palette for all frames, or the background flickers.
    samples = Image.fromarray(np.vstack(rows[:: max(1, length // 6)]))
    palette = samples.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    frames = [Image.fromarray(row).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for row in rows]
    duration_ms = 1000 // FRAMES_PER_SECOND
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration_ms, loop=0, optimize=True)


def main() -> None:
    """Make both pictures."""
    run, output = Path(sys.argv[1]), Path(sys.argv[2])
    films = sorted((run / "films").glob("*.mp4"))
    tasks = sorted({path.stem.split("-")[0] for path in films})
    first = [next(path for path in films if path.stem.startswith(task)) for task in tasks]
    side_by_side([film(path) for path in first], output / "demo.gif")
    size = ",".join(map(str, REPORT_SIZE))
    with tempfile.TemporaryDirectory() as profile:
        page = (run / "report.html").resolve().as_uri()
        shot = (output / "report.png").resolve()
        subprocess.run([*CHROMIUM, f"--user-data-dir={profile}", f"--window-size={size}", f"--screenshot={shot}", page],
                       check=True)  # fmt: skip


if __name__ == "__main__":
    main()
