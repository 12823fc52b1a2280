"""The policy that ships inside the package."""

from pathlib import Path

BUNDLED_NAME = "nano-so101"


def bundled_policy() -> Path:
    """Return the checkpoint folder of the bundled policy; ValueError when this installation lacks it."""
    folder = Path(__file__).parents[1] / "assets" / BUNDLED_NAME
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"This installation has no bundled policy at {folder}. "
            f"Train one with `molmoact2 train {BUNDLED_NAME}` and give its folder with --policy, or install a release."
        )
    return folder
