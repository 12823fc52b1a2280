# pyright: reportAttributeAccessIssue=false
"""Pictures of the scene: quick ones for policies, fine ones for people."""

import atexit
import weakref

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.headless import mujoco
from molmoact2.registry import unknown

CAMERAS = ("front", "wrist", "overview")
FINE_SAMPLES = 8


class Views:
    """Renderers of one model, one per image size and quality, made when first needed."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.model = model
        self.data = data
        self.renderers: dict[tuple[int, int, bool], mujoco.Renderer] = {}

    def check(self, camera: str, height: int, width: int) -> None:
        """Refuse an unknown camera or an empty image with a ValueError."""
        if camera not in CAMERAS:
            raise unknown("camera", camera, CAMERAS)
        if height < 1 or width < 1:
            raise ValueError(f"An image has a positive height and width; got {height} x {width}.")

    def policy_view(self, camera: str, height: int, width: int) -> NDArray[np.uint8]:
        """[height, width, 3] without shadows or smooth edges: four times as fast on a CPU."""
        return self.draw(camera, height, width, fine=False)

    def fine_view(self, camera: str, height: int, width: int) -> NDArray[np.uint8]:
        """[height, width, 3] with shadows and smooth edges."""
        return self.draw(camera, height, width, fine=True)

    def draw(self, camera: str, height: int, width: int, *, fine: bool) -> NDArray[np.uint8]:
        """Render one camera's picture of the present state."""
        renderer = self.renderer(camera, height, width, fine=fine)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = fine
        return renderer.render()

    def depth_view(self, camera: str, height: int, width: int) -> NDArray[np.float32]:
        """[height, width] metres along the camera's axis to what is seen in each pixel of `policy_view`."""
        renderer = self.renderer(camera, height, width, fine=False)
        renderer.enable_depth_rendering()
        try:
            return renderer.render()
        finally:
            renderer.disable_depth_rendering()

    def renderer(self, camera: str, height: int, width: int, *, fine: bool) -> mujoco.Renderer:
        """The renderer of this size and quality, looking at the present state through `camera`."""
        self.check(camera, height, width)
        key = (height, width, fine)
        if key not in self.renderers:
            self.renderers[key] = self.make_renderer(height, width, fine=fine)
        self.renderers[key].update_scene(self.data, camera)
        return self.renderers[key]

    def make_renderer(self, height: int, width: int, *, fine: bool) -> mujoco.Renderer:
        """A renderer of one size; MuJoCo takes the buffer's size and smoothness from the model when it is made."""
        buffer = self.model.vis.global_
        buffer.offheight, buffer.offwidth = height, width
        self.model.vis.quality.offsamples = FINE_SAMPLES if fine else 0
        renderer = mujoco.Renderer(self.model, height, width)
        # MuJoCo shuts EGL down at exit and then fails to free what is left: be done before, even if not told to close.
        atexit.register(close_if_alive, weakref.ref(self))
        return renderer

    def close(self) -> None:
        """Free all renderers."""
        for renderer in self.renderers.values():
            renderer.close()
        self.renderers.clear()


def close_if_alive(views: weakref.ref[Views]) -> None:
    """Free the renderers of views that still exist."""
    alive = views()
    if alive is not None:
        alive.close()
