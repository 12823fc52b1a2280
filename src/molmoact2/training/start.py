"""Where a run starts: a checkpoint, changed into what the run is to make of it.

Molmo2-ER      + robot tokens, single views        -> to be pre-trained: it learns to say actions
MolmoAct2-Pretrain   + action expert               -> to be post-trained: it learns to flow as well
MolmoAct2      + statistics of a new robot         -> to be fine-tuned
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from molmoact2.data.errors import require
from molmoact2.depth.codec import DepthCodec, fingerprint
from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.model.config import ExpertConfig, ModelConfig, config_as_json
from molmoact2.model.initialize import initialize
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.processing.processor import Processor
from molmoact2.processing.settings import IMAGE_FILE, LAYOUT_FILE, read_image_settings
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.reading import parse_json
from molmoact2.training.config import Think
from molmoact2.training.growth import grow


@dataclass(frozen=True, kw_only=True)
class Start:
    """A network with all that belongs to it."""

    model: MolmoAct2
    processor: Processor
    action_tokenizer: ActionTokenizer | None
    depth_codec: DepthCodec | None = None
    """What the codes of its depth maps mean."""

    @classmethod
    def of(cls, policy: MolmoAct2Policy) -> "Start":
        """The parts of a loaded checkpoint."""
        return cls(
            model=policy.model,
            processor=policy.processor,
            action_tokenizer=policy.action_tokenizer,
            depth_codec=policy.depth_codec,
        )

    def with_robots(self, entries: Mapping[str, Mapping[str, Any]]) -> "Start":
        """The same network for these robots too; see `training.fresh.tag_entry`."""
        return replace(self, processor=self.processor.with_tags(entries))

    def to(self, device: torch.device) -> "Start":
        """The same, with the network on a device."""
        return replace(self, model=self.model.to(device))

    def with_room_for(self, entries: Mapping[str, Mapping[str, Any]], *, seed: int) -> "Start":
        """The same network for these robots too. A longer horizon needs no new weights; more dimensions would.

        Raises:
            ValueError: a robot has more action dimensions than the network has.
        """
        config = self.model.config
        widths = {tag: len(entry["action_stats"]["names"]) for tag, entry in entries.items()}
        widest, width = max(widths.items(), key=lambda item: item[1], default=("", 0))
        if config.add_action_expert and width > config.max_action_dim:
            raise ValueError(
                f"{widest!r} has {width} action dimensions, but this network has room for {config.max_action_dim}. "
                "Start from another checkpoint; the releases have room for 32."
            )
        horizons = (entry["action_horizon"] for entry in entries.values())
        longer = replace(config, max_action_horizon=max(config.max_action_horizon, *horizons, 0))
        told = self.with_robots(entries)
        return told if longer == config else told.with_config(longer, seed=seed)

    def with_config(self, config: ModelConfig, *, seed: int) -> "Start":
        """The network of another config, with the weights that both have; new parts are drawn from `seed`."""
        model = grown(self.model, config, seed=seed)
        return replace(self, model=model, processor=self.processor.with_config(config_as_json(config)))

    def with_robot_tokens(
        self, *, num_state: int = 256, num_action: int = 2048, num_depth: int = 128, seed: int
    ) -> "Start":
        """The same network with the tokens of robots, so many of each family; see `training.growth.grow`.

        What it knew it still knows, under ids that may have changed. It shares all weights but its tables of tokens.

        Raises:
            ValueError: it has robot tokens that are not among these.
        """
        counts = {"num_state": num_state, "num_action": num_action, "num_depth": num_depth}
        model, processor = grow(self.model, self.processor, counts, seed=seed)
        return replace(self, model=model, processor=processor)

    def with_depth(self, think: Think, *, seed: int) -> "Start":
        """The same network, able to say depth maps; one that is able already keeps its tokens and gates.

        Raises:
            ValueError: it thinks already, on another grid or with other codes.
        """
        config = self.model.config
        if config.enable_depth_reasoning:
            known = (config.num_depth_codes, config.num_depth_tokens)
            require(
                known == (think.num_codes, think.num_tokens),
                f"The checkpoint says depth maps of {known[0]} cells and {known[1]} codes, the recipe asks for "
                f"{think.num_codes} and {think.num_tokens}. Give the recipe the same numbers.",
            )
            return self
        told = self.with_robot_tokens(
            num_state=config.num_state_tokens,
            num_action=config.num_action_tokens,
            num_depth=think.num_tokens,
            seed=seed,
        )
        able = replace(
            told.model.config,
            enable_depth_reasoning=True,
            num_depth_codes=think.num_codes,
            action_expert_depth_gate=think.gate != "none",
            action_expert_depth_gate_per_layer=think.gate == "layer",
            action_expert_depth_gate_after_norm=think.gates_after_norm and think.gate != "none",
        )
        return told.with_config(able, seed=seed)

    def with_depth_codec(self, codec: DepthCodec) -> "Start":
        """The same network, whose depth codes mean what `codec` says.

        Raises:
            ValueError: it has learned the codes of another codec.
        """
        known = codec if self.depth_codec is None else self.depth_codec
        require(
            fingerprint(known) == fingerprint(codec),
            f"The checkpoint says depth in the codes of codec {fingerprint(known)}, the labels are those of codec "
            f"{fingerprint(codec)}. Label the dataset with the folder depth_codec of the checkpoint.",
        )
        return replace(self, depth_codec=codec)

    def with_single_views(self) -> "Start":
        """The same network, shown each image as one resized view without column tokens, as all robot policies are.

        Molmo2-ER may be shown overlapping crops as well, which are many more tokens (training.md B.3, paper section 4).
        """
        files = dict(self.processor.files)
        image, layout = (parse_json(files[name], name) for name in (IMAGE_FILE, LAYOUT_FILE))
        image |= {"crop_mode": "resize"}
        layout |= {"use_single_crop_col_tokens": False}
        files |= {
            name: json.dumps(said, indent=1).encode() for name, said in ((IMAGE_FILE, image), (LAYOUT_FILE, layout))
        }
        return replace(self, processor=replace(self.processor, files=files, images=read_image_settings(image, layout)))

    def with_action_expert(self, expert: ExpertConfig, *, seed: int, **changes: Any) -> "Start":
        """The same network with a new action expert; `changes` are further fields of its config.

        Raises:
            ValueError: it has an action expert already.
        """
        require(self.model.action_expert is None, "This checkpoint has an action expert. Train that, or leave it out.")
        config = replace(self.model.config, add_action_expert=True, action_expert_config=expert, **changes)
        return self.with_config(config, seed=seed)


def grown(model: MolmoAct2, config: ModelConfig, *, seed: int) -> MolmoAct2:
    """A float32 network of `config` with the parameters of `model` that it has in the same shape.

    Raises:
        ValueError: the new network lacks a parameter of `model`, or has it in another shape, so that what it learned
            would be lost.
    """
    fresh = MolmoAct2(config)
    initialize(fresh, torch.Generator().manual_seed(seed))
    old = dict(model.named_parameters())
    lost = sorted(old.keys() - dict(fresh.named_parameters()).keys())
    require(not lost, f"The network that is to continue the checkpoint has no {', '.join(lost[:3])}. Keep its parts.")
    with torch.no_grad():
        for name, parameter in fresh.named_parameters():
            known = old.get(name, parameter)
            if known.shape != parameter.shape:
                raise ValueError(
                    f"{name} has the shape {list(known.shape)} in the checkpoint and {list(parameter.shape)} in the "
                    "network that is to continue it. Keep the sizes of what it has learned."
                )
            parameter.copy_(known)
    return fresh
