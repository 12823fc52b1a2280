"""The mixtures that have a name: the shares and datasets of the releases (training.md E.7, paper sections 1, 3 and 4).

They are written as in a mixture file, which `molmoact2.data.mixture` reads. A group without datasets is one whose names
were not published: a user has to name the datasets.
"""

from typing import Any

UNPUBLISHED = {
    "yam_dual_molmoact2": "the 737 repositories of BimanualYAM",
    "so100_so101_molmoact2": "1,220 community repositories of 377 people",
}
"""Tag -> what its group is made of, where the names are not known to us."""

YAM = {"embodiment": "yam_dual_molmoact2", "datasets": []}
SO = {"embodiment": "so100_so101_molmoact2", "datasets": []}
DROID = {"embodiment": "franka_droid", "datasets": ["allenai/droid_lerobot"]}
MOLMOACT = {
    "embodiment": "franka_molmoact",
    "datasets": ["allenai/molmoact_tabletop_lerobot", "allenai/molmoact_household_lerobot"],
}
BC_Z = {"embodiment": "google_robot_bc_z", "datasets": ["allenai/bc_z_lerobot"]}
FRACTAL = {"embodiment": "google_robot_fractal", "datasets": ["allenai/fractal_lerobot"]}
BRIDGE = {"embodiment": "widowx_bridge", "datasets": ["allenai/bridge_lerobot"]}
LIBERO = {"embodiment": "libero", "datasets": ["allenai/MolmoAct2-LIBERO-Dataset"]}
ONE_EXTERIOR = {
    "cameras": ["exterior_1_left", "wrist_left"],
    "cameras_alternative": ["exterior_2_left", "wrist_left"],
}
"""In fine-tuning on DROID, one of the two exterior cameras is drawn for each example (paper section 4)."""

MIXTURES: dict[str, dict[str, Any]] = {
    "pre_post_train": {
        "group": [
            *({**group, "rate": 0.3} for group in (YAM, SO, DROID)),
            *({**group, "rate": 0.025} for group in (MOLMOACT, BC_Z, FRACTAL, BRIDGE)),
        ]
    },
    "openfast": {
        "group": [
            *({**group, "rate": 0.3} for group in (YAM, SO, DROID)),
            *({**group, "rate": 0.1 / 3} for group in (FRACTAL, BC_Z, BRIDGE)),
        ]
    },
    "droid": {"group": [{**DROID, **ONE_EXTERIOR, "rate": 1.0}]},
    "yam": {"group": [{**YAM, "rate": 1.0}]},
    "so100_so101": {"group": [{**SO, "rate": 1.0}]},
    "libero": {"group": [{**LIBERO, "rate": 1.0}]},
}
"""Name -> what its file would say."""
