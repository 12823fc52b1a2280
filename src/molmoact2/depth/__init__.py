"""Depth maps as codes: where depth comes from, the codec, how it is fitted, and which cells are decoded anew."""

from molmoact2.depth.change import changed_cells

__all__ = ["changed_cells"]
