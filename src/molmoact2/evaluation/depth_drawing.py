"""Views of depth on paper and film: one as a framed picture, several as a contact sheet or as a video."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from molmoact2.data.files import written_atomically
from molmoact2.evaluation.depth_view import DepthView
from molmoact2.evaluation.film import VideoEncoder

if TYPE_CHECKING:
    pass

PAPER, INK, QUIET, ACCENT = "#ffffff", "#1c1d20", "#65676e", "#c2410c"
MARGIN, GAP, TITLE_HEIGHT, WORDS_HEIGHT = 24, 16, 26, 66
"""Of a framed view, in pixels: around it, between pictures, above them, below them."""
SHEET_PICTURE_HEIGHT, SHEET_GAP, SHEET_COLUMNS = 150, 8, 8
"""Of a contact sheet: height of a picture and distance between two in pixels, and the most moments shown."""
BAR_HEIGHT, WIDEST_BAR, GATES_WIDTH = 28, 12, 240
"""Of the bars of gates, in pixels."""
SUFFIXES = (".png", ".mp4")


def check_output(path: Path | None) -> None:
    """ValueError unless a file is one that views can be written to."""
    if path is not None and path.suffix not in SUFFIXES:
        raise ValueError(f"An episode is drawn as {' or '.join(SUFFIXES)}, got {path}. Name the output so.")


def write_views(path: Path, views: Iterable[DepthView], *, frames_per_second: float) -> int:
    """Write the views as a contact sheet (.png) or as a video (.mp4), atomically; return how many there were."""
    check_output(path)
    writers = {".png": write_sheet, ".mp4": write_video}
    return writers[path.suffix](path, views, frames_per_second)


def write_video(path: Path, views: Iterable[DepthView], frames_per_second: float) -> int:
    """Write a frame per view; frames are compressed as they come."""
    count, encoder = 0, None
    for view in views:
        frame = framed(view)
        encoder = encoder or VideoEncoder(
            height=frame.shape[0], width=frame.shape[1], frames_per_second=max(1, round(frames_per_second))
        )
        encoder.add(frame)
        count += 1
    assert encoder is not None, "an episode has at least one frame"
    with written_atomically(path) as temporary:
        temporary.write_bytes(encoder.finish())
    return count


def write_sheet(path: Path, views: Iterable[DepthView], _frames_per_second: float) -> int:
    """Write at most `SHEET_COLUMNS` of the views, evenly chosen, as one picture."""
    everything = list(views)
    chosen = np.unique(np.linspace(0, len(everything) - 1, SHEET_COLUMNS).round().astype(int))
    with written_atomically(path) as temporary:
        PillowImage.fromarray(contact_sheet([everything[index] for index in chosen])).save(temporary, format="png")
    return len(everything)


def framed(view: DepthView) -> NDArray[np.uint8]:
    """One view with its titles and words: [height, width, 3], both even."""
    pictures = list(view.pictures.items())
    height, width = pictures[0][1].shape[:2]
    canvas = PillowImage.new(
        "RGB",
        (
            even(2 * MARGIN + len(pictures) * (width + GAP) - GAP),
            even(2 * MARGIN + TITLE_HEIGHT + height + WORDS_HEIGHT),
        ),
        PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    for index, (title, picture) in enumerate(pictures):
        left = MARGIN + index * (width + GAP)
        draw.text((left, MARGIN), title, font=font(15), fill=QUIET)
        canvas.paste(PillowImage.fromarray(picture), (left, MARGIN + TITLE_HEIGHT))
    below = MARGIN + TITLE_HEIGHT + height + 14
    draw.text((MARGIN, below), view.headline, font=font(19), fill=INK)
    draw.text((MARGIN, below + 30), " · ".join(view.facts), font=font(14), fill=QUIET)
    draw_gates(draw, view.gates, right=canvas.width - MARGIN, bottom=below + 24)
    return np.asarray(canvas)


def draw_gates(draw: ImageDraw.ImageDraw, gates: NDArray[np.float32] | None, *, right: int, bottom: int) -> None:
    """A bar per layer of the action expert, first layer on the left; nothing without gates."""
    if gates is None:
        return
    pitch = min(WIDEST_BAR, GATES_WIDTH // len(gates))
    left = right - pitch * len(gates)
    draw.text((left - 8, bottom), "gates", font=font(14), fill=QUIET, anchor="rs")
    for layer, gate in enumerate(gates.tolist()):
        start = left + layer * pitch
        end = start + max(0, pitch - 3)
        draw.rectangle((start, bottom - BAR_HEIGHT, end, bottom), fill="#efede8")
        draw.rectangle((start, bottom - round(BAR_HEIGHT * gate), end, bottom), fill=ACCENT)


def contact_sheet(views: Sequence[DepthView]) -> NDArray[np.uint8]:
    """Views of one episode side by side, a column each: the pictures under one another, the time above."""
    first = next(iter(views[0].pictures.values()))
    height = SHEET_PICTURE_HEIGHT
    width = round(height * first.shape[1] / first.shape[0])
    titles = list(views[0].pictures)
    left, top = MARGIN, MARGIN + 86
    row_height = height + TITLE_HEIGHT
    canvas = PillowImage.new(
        "RGB",
        (max(720, 2 * MARGIN + len(views) * (width + SHEET_GAP)), top + len(titles) * row_height + MARGIN),
        PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    draw.text((left, MARGIN), views[0].headline, font=font(21), fill=INK)
    for row, title in enumerate(titles):
        draw.text((left, top + row * row_height), title, font=font(14), fill=QUIET)
    for column, view in enumerate(views):
        across = left + column * (width + SHEET_GAP)
        draw.text((across, top - 46), f"{view.time_s:.2f} s", font=font(15), fill=INK)
        draw.text((across, top - 26), next(iter(view.facts), ""), font=font(12), fill=QUIET)
        for row, picture in enumerate(view.pictures.values()):
            small = PillowImage.fromarray(picture).resize((width, height), PillowImage.Resampling.LANCZOS)
            canvas.paste(small, (across, top + row * row_height + 22))
    return np.asarray(canvas)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with PIL."""
    return ImageFont.load_default(size)


def even(pixels: int) -> int:
    """The next even number."""
    return pixels + pixels % 2
