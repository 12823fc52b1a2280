"""Pictures of depth: near bright, far dark."""

import numpy as np
from jaxtyping import Float, UInt8

STOPS = np.array([
    (0, 0, 4), (22, 11, 57), (66, 10, 104), (106, 23, 110), (147, 38, 103), (188, 55, 84),
    (221, 81, 58), (243, 120, 25), (252, 165, 10), (246, 215, 70), (252, 255, 164),
], np.float32)  # fmt: skip
"""Colours from dark to bright at even steps of perceived lightness (the map "inferno" of matplotlib, CC0)."""
TABLE = np.stack(
    [np.interp(np.linspace(0, len(STOPS) - 1, 256), np.arange(len(STOPS)), channel) for channel in STOPS.T], axis=1
).round().astype(np.uint8)  # fmt: skip


def coloured(nearness: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n 3"]:
    """Colours of numbers from 0 (far, dark) to 1 (near, bright); what lies outside gets the end's colour."""
    return TABLE[np.clip(nearness * 256, 0, 255).astype(np.uint8)]
