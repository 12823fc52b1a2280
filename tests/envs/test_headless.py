import subprocess
import sys

import pytest

from molmoact2.envs import headless


def test_egl_is_preferred_then_osmesa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headless, "loads", lambda _: True)
    assert headless.choose_backend() == "egl"
    monkeypatch.setattr(headless, "loads", lambda library: "OSMesa" in library)
    assert headless.choose_backend() == "osmesa"


def test_a_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headless, "loads", lambda _: False)
    with pytest.raises(ImportError, match=r"libegl1 .*libosmesa6"):
        headless.choose_backend()


def test_a_missing_simulator_says_how_to_install_it() -> None:
    script = "import sys; sys.modules['mujoco'] = None; import molmoact2.envs as e; e.make('so101')"
    failed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert 'pip install "molmoact2[sim]"' in failed.stderr.splitlines()[-1]


def test_the_simulator_does_not_import_torch() -> None:
    script = "import sys, molmoact2.envs.so101_expert, molmoact2.envs.gymnasium; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_package_imports_without_a_simulator() -> None:
    script = "import sys, molmoact2.envs; assert not {'mujoco', 'gymnasium', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_leaving_without_closing_is_quiet() -> None:
    script = "from molmoact2.envs import make; e = make('so101'); e.reset(seed=0, task='pick'); e.observe()"
    left = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert left.stderr == ""
