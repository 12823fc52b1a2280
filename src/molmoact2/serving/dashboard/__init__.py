"""The dashboard: a page of the server that shows what robots see, plan and do, and lets a human hold them."""

from molmoact2.serving.dashboard.board import Board
from molmoact2.serving.dashboard.routes import build_dashboard

__all__ = ["Board", "build_dashboard"]
