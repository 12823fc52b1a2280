"""Depth reasoning: which cells of the depth map must be decoded anew."""

from molmoact2.depth.change import changed_cells

__all__ = ["changed_cells"]
