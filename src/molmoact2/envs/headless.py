"""MuJoCo, imported with an off-screen renderer that this machine has.

MuJoCo reads `MUJOCO_GL` once, when it is imported, so every module here takes it from this one. A value that the user
has set is left alone.
"""

import ctypes
import os
import sys

EGL_LIBRARIES = ("libEGL.so.1",)
OSMESA_LIBRARIES = ("libOSMesa.so", "libOSMesa.so.8", "libOSMesa.so.6")


def loads(library: str) -> bool:
    """Whether the dynamic linker finds this shared library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def choose_backend() -> str:
    """Name of the off-screen renderer to use on Linux.

    Raises:
        ImportError: neither EGL nor OSMesa is installed.
    """
    for backend, libraries in (("egl", EGL_LIBRARIES), ("osmesa", OSMESA_LIBRARIES)):
        if any(loads(library) for library in libraries):
            return backend
    raise ImportError(
        "The simulator renders off-screen and needs EGL or OSMesa; neither was found. "
        "On Debian or Ubuntu: apt-get install libegl1 (or libosmesa6)."
    )


def missing_extra(package: str) -> ImportError:
    """The error for a simulator package that is not installed."""
    return ImportError(f'The simulator needs {package}. Install it with: pip install "molmoact2[sim]"')


if sys.platform.startswith("linux") and "MUJOCO_GL" not in os.environ:
    os.environ["MUJOCO_GL"] = choose_backend()

try:
    import mujoco
except ModuleNotFoundError as error:
    raise missing_extra("mujoco") from error

__all__ = ["choose_backend", "missing_extra", "mujoco"]
