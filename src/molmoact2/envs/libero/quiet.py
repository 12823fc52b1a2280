# pyright: reportMissingImports=false
"""robosuite and LIBERO, imported without their noise, and MuJoCo.

robosuite 1.4 warns about settings that nobody needs, and logs to /tmp/robosuite.log, which only the first user of a
machine may write. Its settings are therefore loaded, and corrected, before it is.
"""

import sys
import warnings
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

SETTINGS = "robosuite.macros"


def preset_robosuite() -> None:
    """Put robosuite's settings where it will find them: errors only, no log file; nothing when it is imported already.

    Raises:
        ImportError: robosuite is not installed.
    """
    package = find_spec("robosuite")
    if package is None or package.origin is None:
        raise ImportError('LIBERO needs robosuite. Install it with: pip install "molmoact2[libero]"')
    spec = spec_from_file_location(SETTINGS, Path(package.origin).with_name("macros.py"))
    assert spec is not None
    assert spec.loader is not None
    settings = module_from_spec(spec)
    spec.loader.exec_module(settings)
    vars(settings).update(CONSOLE_LOGGING_LEVEL="ERROR", FILE_LOGGING_LEVEL=None)
    sys.modules.setdefault(SETTINGS, settings)


preset_robosuite()

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # In this order: the first import chooses the renderer, which robosuite then keeps.
        from molmoact2.envs.headless import mujoco  # isort: skip
        from libero.libero.envs.env_wrapper import ControlEnv  # isort: skip
        from robosuite.utils.errors import RandomizationError  # isort: skip
        from robosuite.utils.observables import Observable, sensor  # isort: skip
except ModuleNotFoundError as error:
    raise ImportError(
        f'LIBERO needs the package {error.name}. Install it with: pip install "molmoact2[libero]"'
    ) from error

__all__ = ["ControlEnv", "Observable", "RandomizationError", "mujoco", "sensor"]
