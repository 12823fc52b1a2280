"""The base of policies."""

from torch import nn


class PreTrainedPolicy(nn.Module):
    def __init__(self, _config: object) -> None:
        super().__init__()
