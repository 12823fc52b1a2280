# pyright: reportAttributeAccessIssue=false
"""Pictures of a LIBERO scene, made when somebody looks."""

import atexit
import weakref

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from molmoact2.envs.libero.quiet import mujoco
from molmoact2.envs.libero.simulator import SNAPSHOT, Simulation, as_it_was
from molmoact2.envs.so101_labels import Pixel, project
from molmoact2.registry import unknown

CAMERAS = {"image": "agentview", "wrist_image": "robot0_eye_in_hand"}
"""What a policy calls a camera -> what the simulator does."""
OVERVIEW = "overview"


class Views:
    """The cameras of one simulation; renderers are made when first needed, one per size."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self.option = mujoco.MjvOption()
        self.option.geomgroup[0] = 0
        """The first group of shapes is for collisions, not for looking at."""

    def policy_view(self, camera: str, pixels: int, *, half_turn: bool) -> NDArray[np.uint8]:
        """[pixels, pixels, 3] what robosuite's sensor of `camera` saw last: upside down, or turned by 180 degrees."""
        renderer = self.renderer(pixels, pixels)
        with as_it_was(self.simulation.data, self.simulation.sensed[SNAPSHOT]):
            renderer.update_scene(self.simulation.data, CAMERAS[camera], self.option)
        upright = renderer.render()
        return np.ascontiguousarray(upright[:, ::-1] if half_turn else upright[::-1])

    def picture(self, camera: str, height: int, width: int) -> NDArray[np.uint8]:
        """[height, width, 3] the present scene for people, neither turned nor mirrored; "overview" is from the front.

        Raises:
            ValueError: an unknown camera or a size that is not positive.
        """
        names = {**CAMERAS, OVERVIEW: CAMERAS["image"]}
        if camera not in names:
            raise unknown("camera", camera, names)
        renderer = self.renderer(height, width)
        renderer.update_scene(self.simulation.data, names[camera], self.option)
        return renderer.render()

    def pixel(self, camera: str, position_m: NDArray[np.float64], pixels: int, *, half_turn: bool) -> Pixel:
        """Where a point [3] of the world is in an image of `policy_view`."""
        simulation = self.simulation
        plain = project(simulation.model, simulation.data, CAMERAS[camera], position_m, (pixels, pixels))
        u, v = (pixels - plain.u, plain.v) if half_turn else (plain.u, pixels - plain.v)
        return Pixel(u=u, v=v, inside=plain.inside)

    def renderer(self, height: int, width: int) -> mujoco.Renderer:
        """The renderer of this size."""
        if height < 1 or width < 1:
            raise ValueError(f"An image has a positive height and width; got {height} x {width}.")
        if (height, width) not in self.renderers:
            buffer = self.simulation.model.vis.global_
            buffer.offheight, buffer.offwidth = max(height, buffer.offheight), max(width, buffer.offwidth)
            self.renderers[height, width] = mujoco.Renderer(self.simulation.model, height, width)
            # MuJoCo shuts EGL down at exit and then cannot free what is left: be done before, even if never closed.
            atexit.register(close_if_alive, weakref.ref(self))
        return self.renderers[height, width]

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


def resampled(image: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """The square image at [pixels, pixels, 3], bilinear and antialiased; itself where it has that size."""
    if len(image) == pixels:
        return image
    return np.asarray(Image.fromarray(image).resize((pixels, pixels), Image.Resampling.BILINEAR))
