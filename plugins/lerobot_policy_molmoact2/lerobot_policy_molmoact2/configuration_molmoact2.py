"""How LeRobot is told of a MolmoAct2 policy server: `--policy.type=molmoact2_remote --policy.server=…`."""

from dataclasses import dataclass, field
from typing import NoReturn

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode

TRAIN_ELSEWHERE = (
    "A policy on a server cannot be trained from here. Train it where it is with molmoact2 finetune, which reads "
    "LeRobot datasets, and serve the result."
)


@PreTrainedConfig.register_subclass("molmoact2_remote")
@dataclass
class MolmoAct2RemoteConfig(PreTrainedConfig):
    """Where the server is, and what it is asked."""

    server: str = "ws://127.0.0.1:8000"
    """ws://host:port, or wss://host:port for TLS."""
    token_file: str | None = None
    """File with the server's token. The token itself is no option: LeRobot writes options to logs and to the hub."""
    embodiment: str | None = None
    """Which of the server's robots this is; may be left out where it knows only one."""
    cameras: dict[str, str] | None = None
    """Camera of the policy -> camera of LeRobot, in the policy's order; None where they have the same names."""
    calibration: str | None = None
    """Of the data that a policy for SO-100 or SO-101 learned from: "old", "new"; the arm itself is calibrated today."""
    think: bool = False
    """Predict the depth map first."""
    n_action_steps: int | None = None
    """Rows of a plan; the policy's own number by default."""
    num_steps: int | None = None
    """Steps of the flow; the checkpoint's own number by default."""
    ahead: int = 0
    """Rows that are left of a plan when the next one is asked for. 0 asks when there are none, and the arm stands still
    until the answer is there."""
    seed: int | None = None
    """Of each episode's noise; every further robot of a batch has the next one. None lets the server draw."""
    jpeg_quality: int | None = None
    """Send images as JPEG of this quality, 1 to 95; None sends them as they are."""
    timeout_s: float = 10.0
    """Longest wait for an answer."""
    patience_s: float = 30.0
    """How long the arm holds its last command while the server does not answer, before the program ends."""

    device: str | None = "cpu"
    push_to_hub: bool = False
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )
    """Nothing: the server takes and gives robot units."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ahead < 0:
            raise ValueError(f"ahead counts rows: it must be 0 or more, got {self.ahead}.")
        if self.patience_s < 0:
            raise ValueError(f"patience_s must be 0 or more seconds, got {self.patience_s}.")

    @property
    def observation_delta_indices(self) -> None:
        """The present is enough."""
        return None

    @property
    def action_delta_indices(self) -> None:
        """Nothing is learned here."""
        return None

    @property
    def reward_delta_indices(self) -> None:
        """Nothing is learned here."""
        return None

    def get_optimizer_preset(self) -> NoReturn:
        """NotImplementedError: there is nothing to train."""
        raise NotImplementedError(TRAIN_ELSEWHERE)

    def get_scheduler_preset(self) -> NoReturn:
        """NotImplementedError: there is nothing to train."""
        raise NotImplementedError(TRAIN_ELSEWHERE)

    def validate_features(self) -> None:
        """ValueError without a camera, a state or actions."""
        kinds = {one.type for one in {**(self.input_features or {}), **(self.output_features or {})}.values()}
        needed = (FeatureType.VISUAL, FeatureType.STATE, FeatureType.ACTION)
        missing = [kind.value for kind in needed if kind not in kinds]
        if missing:
            raise ValueError(
                f"molmoact2_remote needs cameras, a state and actions; missing here: {', '.join(missing)}."
            )
