"""The steps around the policy. They change nothing but names, batches and devices: the server speaks robot units.

They are LeRobot's own, under the names that its tools override.
"""

from typing import Any

import torch
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    NormalizerProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
    UnnormalizerProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME

from lerobot_policy_molmoact2.configuration_molmoact2 import MolmoAct2RemoteConfig

Pipelines = tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]


def make_molmoact2_remote_pre_post_processors(
    config: MolmoAct2RemoteConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None, **_: object
) -> Pipelines:
    """Before and after the policy; `dataset_stats` are kept and not used, as nothing is normalised here."""
    inputs, outputs, modes = config.input_features or {}, config.output_features or {}, config.normalization_mapping
    before = [
        RenameObservationsProcessorStep(rename_map={}),
        AddBatchDimensionProcessorStep(),
        DeviceProcessorStep(device=config.device or "cpu"),
        NormalizerProcessorStep(features={**inputs, **outputs}, norm_map=modes, stats=dataset_stats),
    ]
    after = [
        UnnormalizerProcessorStep(features=outputs, norm_map=modes, stats=dataset_stats),
        DeviceProcessorStep(device="cpu"),
    ]
    return (
        PolicyProcessorPipeline[dict[str, Any], dict[str, Any]](steps=before, name=POLICY_PREPROCESSOR_DEFAULT_NAME),
        PolicyProcessorPipeline[PolicyAction, PolicyAction](
            steps=after,
            name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    )
