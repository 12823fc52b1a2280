"""The policies that ship inside the package."""

from pathlib import Path

BUNDLED_NAME = "nano-so101"
THINKING_NAME = "nano-think"
"""The same, able to think."""


def bundled_policy(name: str = BUNDLED_NAME) -> Path:
    """Return the checkpoint folder of a bundled policy; ValueError when this installation lacks it."""
    folder = Path(__file__).parents[1] / "assets" / name
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"This installation has no bundled policy at {folder}. "
            f"Train one with `molmoact2 train {name}` and give its folder with --policy, or install a release."
        )
    return folder
