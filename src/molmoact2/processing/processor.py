"""Between robots and the network: observations to model inputs, model actions to robot actions.

One object serves training and inference; it is loaded from and saved with a checkpoint.

    encode         Observation  ->  Encoded           everything checked, state normalised
    encode_prompt  its parts    ->  Encoded           for the trainer, which may have jittered the state or the images
    collate        [Encoded]    ->  ModelInputs       right padding
    decode_actions [h, max_action_dim] normalised  ->  [n_action_steps, action_dim] in robot units
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Float32, UInt8

from molmoact2.processing.encoded import Encoded, assemble
from molmoact2.processing.images import choose_tiling, view, view_and_crops
from molmoact2.processing.layout import crops_block, frame_block, view_block
from molmoact2.processing.norm_stats import FORMAT, NormStats, TagStats
from molmoact2.processing.observation import checked_images, checked_instruction, checked_question, checked_state
from molmoact2.processing.settings import (
    IMAGE_FILE,
    LAYOUT_FILE,
    VIDEO_FILE,
    ImageSettings,
    read_image_settings,
    read_video_settings,
)
from molmoact2.tokens.prompt import TRIGGERS, Style, chat, image_prefix, robot_question, video_prefix, wrap
from molmoact2.tokens.reading import parse_json, read_field, require
from molmoact2.tokens.state import state_bins
from molmoact2.tokens.vocabulary import Vocabulary
from molmoact2.types import Observation

Images: TypeAlias = Sequence[UInt8[np.ndarray, "_ _ 3"]] | UInt8[np.ndarray, "v _ _ 3"]
"""Images in order, of any sizes or stacked."""
REQUIRED_FILES = ("config.json", "tokenizer.json", IMAGE_FILE, LAYOUT_FILE)
NORM_STATS_FILE = "norm_stats.json"
"""Unless `config.json` names another."""
KEPT_FILES = (
    *REQUIRED_FILES,
    VIDEO_FILE,
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""What is saved again unchanged, where it was there. Code beside a checkpoint is neither read nor kept."""


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Knows how a checkpoint wants its text, images, states and actions."""

    vocabulary: Vocabulary
    images: ImageSettings
    video: ImageSettings | None
    """None for a checkpoint that was not given settings for videos."""
    norm_stats: NormStats | None
    """None for a checkpoint that knows no robot."""
    files: Mapping[str, bytes] = field(repr=False)
    """The small files of the checkpoint by name."""

    @classmethod
    def load(cls, directory: str | Path) -> "Processor":
        """Read the small files of a checkpoint directory; ValueError says which is missing or wrong."""
        paths = [path for path in Path(directory).iterdir() if path.suffix in (".json", ".txt", ".jinja")]
        return cls.from_files({path.name: path.read_bytes() for path in paths})

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "Processor":
        """Read the contents of a checkpoint's small files by name; statistics and video settings may be absent."""
        missing = [name for name in REQUIRED_FILES if name not in files]
        require(not missing, f"The checkpoint lacks {', '.join(missing)}. Is this a MolmoAct2 checkpoint directory?")
        config = parse_json(files["config.json"], "config.json")
        norm_stats_file = norm_stats_name(config)
        read = [IMAGE_FILE, LAYOUT_FILE, *(name for name in (VIDEO_FILE, norm_stats_file) if name in files)]
        documents = {name: parse_json(files[name], name) for name in read}
        layout = documents[LAYOUT_FILE]
        return cls(
            vocabulary=Vocabulary.read(files["tokenizer.json"].decode(), config),
            images=read_image_settings(documents[IMAGE_FILE], layout),
            video=read_video_settings(documents[VIDEO_FILE], layout) if VIDEO_FILE in documents else None,
            norm_stats=NormStats.read(documents[norm_stats_file]) if norm_stats_file in documents else None,
            files={name: files[name] for name in KEPT_FILES if name in files},
        )

    def save(self, directory: str | Path) -> None:
        """Write the small files of a checkpoint into `directory`, which must exist."""
        contents = dict(self.files)
        if self.norm_stats is not None:
            name = norm_stats_name(parse_json(self.files["config.json"], "config.json"))
            contents[name] = json.dumps(self.norm_stats.document, indent=1).encode()
        for name, content in contents.items():
            (Path(directory) / name).write_bytes(content)

    def with_config(self, config: Mapping[str, Any]) -> "Processor":
        """The same processor for a network whose `config.json` says `config`, on top of what it says now."""
        said = parse_json(self.files["config.json"], "config.json") | dict(config)
        files = {**self.files, "config.json": json.dumps(said).encode()}
        return replace(self, files=files, vocabulary=Vocabulary.read(files["tokenizer.json"].decode(), said))

    def with_tags(self, entries: Mapping[str, Mapping[str, Any]]) -> "Processor":
        """The same processor with further embodiments, or new statistics of known ones."""
        known = self.norm_stats or NormStats(tags={}, document={"format": FORMAT, "norm_mode": "q01_q99",
                                                               "metadata_by_tag": {}})  # fmt: skip
        return replace(self, norm_stats=known.with_tags(entries))

    def tag(self, embodiment: str | None) -> TagStats:
        """What the checkpoint knows about an embodiment; None means the only one it knows."""
        if self.norm_stats is None:
            raise ValueError(
                "This checkpoint has no norm_stats.json, so it knows no robot and can only be asked in words."
            )
        return self.norm_stats.tag(embodiment)

    def encode(self, observation: Observation, embodiment: str | None = None, *, think: bool = False) -> Encoded:
        """Check an observation and turn it into a prompt that asks for an action, with `think` for a depth map before.

        Raises ValueError for an unknown embodiment, cameras that are not its own, images that are not RGB in uint8 or
        [0, 1], a state of another length or not finite, an instruction without words, and for thinking without depth
        tokens.
        """
        stats = self.tag(embodiment)
        images = checked_images(observation.images, stats.camera_keys)
        state = checked_state(observation.state, width=stats.state.width, names=stats.state.names)
        return self.encode_prompt(
            images=images,
            instruction=observation.instruction,
            normalized_state=stats.state_scaling.normalize(state),
            embodiment=embodiment,
            style="robot_depth_action" if think else "robot_action",
        )

    def encode_prompt(
        self,
        *,
        images: Images,
        instruction: object,
        normalized_state: Float[np.ndarray, " d"],
        embodiment: str | None = None,
        style: Style = "robot_action",
    ) -> Encoded:
        """Like `encode`, from images in order and a state that is normalised (and perhaps jittered) already."""
        stats, words = self.tag(embodiment), self.vocabulary
        can_answer = "depth" not in style or words.depth is not None
        require(can_answer, "This checkpoint has no depth tokens, so it cannot think. Use think=False.")
        question = robot_question(
            task=checked_instruction(instruction, reserved=words.reserved),
            setup=wrap(stats.setup, "setup") if words.wraps_setup else stats.setup,
            control_mode=wrap(stats.control_mode, "control") if words.wraps_control else stats.control_mode,
            state=self.state_text(normalized_state),
            style=style,
        )
        return self.with_images(chat(question, prefix=image_prefix(len(images)), trigger=TRIGGERS[style]), images)

    def encode_question(self, question: object, images: Images = ()) -> Encoded:
        """A prompt that asks something in words about images, as a vision-language model is asked."""
        checked = checked_images(images, ()) if len(images) else []
        text = checked_question(question, reserved=self.vocabulary.reserved)
        return self.with_images(chat(text, prefix=image_prefix(len(checked))), checked)

    def encode_video(
        self, question: str, frames: Sequence[UInt8[np.ndarray, "_ _ 3"]], times_s: Sequence[float]
    ) -> Encoded:
        """A prompt that asks something in words about frames of a video, taken at `times_s` seconds."""
        if self.video is None or len(frames) != len(times_s) or not len(frames):
            raise ValueError(
                f"A video is at least one frame and one time for each, got {len(frames)} and {len(times_s)}; "
                f"and the checkpoint needs a {VIDEO_FILE}, which it {'has' if self.video else 'lacks'}."
            )
        text = checked_question(question, reserved=self.vocabulary.reserved)
        crops = [view(frame, self.video) for frame in frames]
        blocks = [frame_block(self.video, self.vocabulary.image)] * len(frames)
        return assemble(chat(text, prefix=video_prefix(times_s)), crops, blocks, self.video, self.vocabulary)

    def with_images(self, prompt: str, images: Images) -> Encoded:
        """Put images in the places that a prompt has for them."""
        if self.images.crop_mode == "resize":
            crops = [view(image, self.images) for image in images]
            blocks = [view_block(self.images, self.vocabulary.image)] * len(images)
            return assemble(prompt, crops, blocks, self.images, self.vocabulary)
        tilings = [choose_tiling(image.shape[0], image.shape[1], self.images) for image in images]
        crops = [view_and_crops(image, self.images, tiling) for image, tiling in zip(images, tilings, strict=True)]
        blocks = [crops_block(self.images, self.vocabulary.image, tiling) for tiling in tilings]
        return assemble(prompt, crops, blocks, self.images, self.vocabulary)

    def state_text(self, normalized_state: Float[np.ndarray, " d"]) -> str:
        """How a normalised state is written; empty where the checkpoint has no state tokens."""
        family = self.vocabulary.state
        return "" if family is None else family.text(state_bins(normalized_state, num_bins=family.count))

    def decode_actions(
        self, actions: Float[np.ndarray, "*b h a"], embodiment: str | None = None, *, num_steps: int | None = None
    ) -> Float32[np.ndarray, "*b steps width"]:
        """The first `num_steps` (the tag's own number by default) of normalised model actions, in robot units.

        Dimensions beyond the tag's true width are padding and are dropped.
        """
        stats = self.tag(embodiment)
        steps = stats.n_action_steps if num_steps is None else num_steps
        horizon = actions.shape[-2]
        require(1 <= steps <= horizon, f"The number of action steps must be 1 to {horizon}, got {steps}.")
        return stats.action_scaling.restore(actions[..., :steps, : stats.action.width])


def norm_stats_name(config: Mapping[str, object]) -> str:
    """Name of the file with the statistics."""
    return read_field({"norm_stats_filename": NORM_STATS_FILE, **config}, "norm_stats_filename", str, "config.json")
