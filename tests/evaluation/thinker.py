"""A checkpoint small enough for a test that thinks and ends its thoughts: the golden one, told of the SO-101."""

import json
import shutil
from pathlib import Path

from molmoact2.testing import tiny_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny-think"
NORM_STATS = "norm_stats.json"


def tiny_thinker(folder: Path) -> Path:
    """Write it to `folder`: 16 depth cells, plans of 6 rows of which 4 are executed."""
    shutil.copytree(GOLDEN, folder)
    robot = json.loads((tiny_checkpoint(folder.with_name(f"{folder.name}-robot")) / NORM_STATS).read_text())
    norm_stats = json.loads((folder / NORM_STATS).read_text())
    entry = robot["metadata_by_tag"]["so101_tabletop"] | {"action_horizon": 6, "n_action_steps": 4}
    norm_stats["metadata_by_tag"] = {"so101_tabletop": entry}
    (folder / NORM_STATS).write_text(json.dumps(norm_stats))
    return folder
