"""A thought as a small picture for the report: the depth map, renewed cells outlined, and its numbers below."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from molmoact2.evaluation.depth_pictures import depth_picture, outlined, resized
from molmoact2.types import DepthReasoning, Image

HEIGHT, STRIP = 192, 32
"""Pixels of the map, and of the strip with numbers below it."""
STRIP_COLOUR, INK, BAR = (28, 29, 32), (236, 235, 231), (251, 138, 75)
"""Readable on light and on dark pages."""
BAR_HEIGHT, GATES_WIDTH = 16, 64


def thought_tile(thought: DepthReasoning, image: Image, *, error_mm: float | None = None) -> NDArray[np.uint8]:
    """The thought about an image as a picture [height, width, 3] of the image's shape, and a strip below.

    In the strip: how many cells were renewed, the error where it is given, and the gate of each layer as a bar.
    """
    size = HEIGHT, round(HEIGHT * image.shape[1] / image.shape[0])
    canvas = PillowImage.new("RGB", (size[1], HEIGHT + STRIP), STRIP_COLOUR)
    canvas.paste(PillowImage.fromarray(outlined(resized(depth_picture(thought), size), thought.changed)))
    draw, middle = ImageDraw.Draw(canvas), HEIGHT + STRIP // 2
    error = "" if error_mm is None else f" · {error_mm:.0f} mm"
    draw.text(
        (8, middle), f"{thought.changed.sum()} new{error}", font=ImageFont.load_default(15), fill=INK, anchor="lm"
    )
    gates = np.zeros(0) if thought.gates is None else thought.gates
    pitch = min(8, GATES_WIDTH // max(1, len(gates)))
    for layer, gate in enumerate(gates.tolist()):
        left, bottom = size[1] - 8 - pitch * (len(gates) - layer), middle + BAR_HEIGHT // 2
        right = left + max(0, pitch - 3)
        draw.rectangle((left, bottom - BAR_HEIGHT, right, bottom), fill=(60, 61, 66))
        draw.rectangle((left, bottom - round(BAR_HEIGHT * gate), right, bottom), fill=BAR)
    return np.asarray(canvas)
