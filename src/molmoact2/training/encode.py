"""From a raw example to what the network and the losses read; training encodes with the policy's own processor.

    prompt … <action_output> | <depth_start> … <depth_end> | <action_start> … <action_end> <|im_end|>
                               the depth map, if any         the spoken action, if any
    what the expert sees ----------------------------------^

Everything random about an example (augmentation, noise, flow times) comes from its number, so that the loss is the same
on one rank and on many.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from molmoact2.data.errors import require
from molmoact2.model.config import ModelConfig
from molmoact2.processing.encoded import Encoded
from molmoact2.processing.processor import Processor
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.prompt import Style
from molmoact2.training.config import StageConfig
from molmoact2.training.examples import Example, PlacedExample, Places, QuestionExample, RobotExample

NO_TOKENS = np.empty(0, np.int64)


@dataclass(frozen=True, kw_only=True)
class ActionTarget:
    """What the expert is to learn from an example."""

    actions: Float32[np.ndarray, "h a"]
    """Normalised, over the robot's own horizon, padded to the network's width."""
    is_valid: Bool[np.ndarray, " h"]
    action_dim: int
    """How many of its dimensions flow: the robot's own, or all if the network does not mask the others."""
    noise: Float32[np.ndarray, "k h a"]
    """Zero in the dimensions that are padding, if the network masks those."""
    t: Float32[np.ndarray, " k"]


@dataclass(frozen=True, kw_only=True)
class PointingTarget:
    """What the pointing heads are to learn from an example."""

    trigger: int
    """Index of the prompt's last token."""
    image_tokens: Int[np.ndarray, "v i"]
    """Indices of each camera's image tokens."""
    cell: Int[np.ndarray, "v o"]
    """Which image token of a camera shows a thing, -1 where it does not see it."""
    places: Places


@dataclass(frozen=True, kw_only=True)
class TrainExample:
    """One example, encoded."""

    encoded: Encoded
    """Prompt and answer, as they are read."""
    num_prompt: int
    """Tokens before the answer."""
    num_seen: int
    """Tokens that the expert may look at: the prompt, and the depth map where there is one."""
    answer: Int[np.ndarray, " n"]
    """The answer as it is to be said; it is read with noise in the depth map, if there is any."""
    label_weight: Float32[np.ndarray, " n"]
    """Weight of each answer token in the language loss."""
    action: ActionTarget | None
    pointing: PointingTarget | None
    origin: str

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.encoded.token_ids)


@dataclass(frozen=True, kw_only=True)
class ExampleEncoder:
    """Encodes examples for one network."""

    processor: Processor
    action_tokenizer: ActionTokenizer | None
    config: ModelConfig
    seed: int

    def __call__(self, example: Example, stage: StageConfig, key: tuple[int, ...]) -> TrainExample:
        """Encode one example for a stage of training; `key` makes its random draws its own."""
        rng = np.random.default_rng((self.seed, *key))
        match example:
            case QuestionExample():
                return self.question(example, stage, rng)
            case _:
                return self.robot(example, stage, rng)

    def question(self, example: QuestionExample, stage: StageConfig, rng: np.random.Generator) -> TrainExample:
        """A question with its answer in words."""
        words = self.processor.vocabulary
        prompt = self.processor.encode_question(example.question, stage.augmentation(example.images, rng))
        answer = np.append(words.encode(example.answer), words.end_of_turn)
        return TrainExample(
            encoded=followed_by(prompt, answer),
            num_prompt=len(prompt.token_ids),
            num_seen=len(prompt.token_ids),
            answer=answer,
            label_weight=example.weight * answer_weights(len(answer)),
            action=None,
            pointing=None,
            origin=example.origin,
        )

    def robot(self, example: RobotExample, stage: StageConfig, rng: np.random.Generator) -> TrainExample:
        """An observation with the actions that followed it."""
        stats, words = self.processor.tag(example.tag), self.processor.vocabulary
        is_finite = bool(np.isfinite(example.state).all() and np.isfinite(example.actions).all())
        require(is_finite, f"{example.origin}: state and actions must be finite. Leave the episode out.")
        state = stats.state_scaling.normalize(example.state)
        if stage.state_jitter_bins and words.state is not None:
            state = state + rng.uniform(-1, 1, state.shape) * stage.state_jitter_bins * 2 / (words.state.count - 1)
        # What is only there to be pointed at, with neither actions nor depth, is asked for the action.
        is_scene = example.depth_codes is None and not example.is_valid.any()
        style = "robot_action" if is_scene else draw_style(stage.styles, rng)
        prompt = self.processor.encode_prompt(
            images=stage.augmentation(example.images, rng),
            instruction=example.instruction,
            normalized_state=state,
            embodiment=example.tag,
            style=style,
        )
        normalized, acts = stats.action_scaling.normalize(example.actions), "action" in style
        depth = self.depth(example) if "depth" in style else NO_TOKENS
        is_due = acts and stage.says_actions
        is_spoken = is_due and bool(example.is_valid.all())
        said = np.concatenate((depth, self.spoken(normalized) if is_spoken else NO_TOKENS))
        # Where an action is due but cannot be spoken, nothing is said to end after the depth map.
        answer = np.append(said, words.end_of_turn) if said.size and is_spoken == is_due else said
        read = answer.copy()
        read[1 : max(1, len(depth) - 1)] = self.noisy(depth[1:-1], stage.depth_noise, rng)
        return TrainExample(
            encoded=followed_by(prompt, read),
            num_prompt=len(prompt.token_ids),
            num_seen=len(prompt.token_ids) + len(depth),
            answer=answer,
            label_weight=answer_weights(len(answer)),
            action=self.target(normalized, example, stage, rng) if acts else None,
            pointing=self.pointing(example, prompt),
            origin=example.origin,
        )

    def spoken(self, normalized: Float[np.ndarray, "h a"]) -> Int[np.ndarray, " n"]:
        """A whole chunk as a policy says it. Chunks that reach beyond their episode are not spoken, only flowed."""
        words = self.processor.vocabulary
        if self.action_tokenizer is None or words.action is None:
            raise ValueError("To learn to say actions, a network needs action tokens and an action tokenizer.")
        return words.action.span(self.action_tokenizer.encode(normalized[None])[0])

    def depth(self, example: RobotExample) -> Int[np.ndarray, " n"]:
        """A depth map as a policy says it."""
        family = self.processor.vocabulary.depth
        if family is None or example.depth_codes is None:
            raise ValueError(
                f"{example.origin}: to say depth maps, a network needs depth tokens and an example depth codes."
            )
        return family.span(example.depth_codes)

    def noisy(self, codes: Int[np.ndarray, " n"], rate: float, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """Token ids of depth codes, some of them replaced by others at random (training.md F.4)."""
        family = self.processor.vocabulary.depth
        if family is None or not rate:
            return codes
        other = family.first + rng.integers(family.count, size=len(codes))
        return np.where(rng.random(len(codes)) < rate, other, codes)

    def target(
        self, normalized: Float[np.ndarray, "h a"], example: RobotExample, stage: StageConfig, rng: np.random.Generator
    ) -> ActionTarget | None:
        """Chunk, noise and times for the expert; None where there is nothing for it to learn."""
        (horizon, width), config = normalized.shape, self.config
        if not stage.flow_samples or not example.is_valid.any():
            return None
        # What flows at inference has to be learned: the padding too, unless the network masks it.
        num_flowing = width if config.mask_action_dim_padding else config.max_action_dim
        noise = rng.standard_normal((stage.flow_samples, horizon, config.max_action_dim), np.float32)
        noise[..., num_flowing:] = 0
        return ActionTarget(
            actions=np.pad(normalized, ((0, 0), (0, config.max_action_dim - width))).astype(np.float32),
            is_valid=example.is_valid,
            action_dim=num_flowing,
            noise=noise,
            t=flow_times(stage.flow_samples, config, rng),
        )

    def pointing(self, example: RobotExample, prompt: Encoded) -> PointingTarget | None:
        """Targets of the pointing heads, where the example says where things are."""
        if not isinstance(example, PlacedExample):
            return None
        settings, pixel = self.processor.images, example.places.pixel
        rows, columns = (side // pool for side, pool in zip(settings.grid, settings.pooling, strict=True))
        column, row = np.floor(np.moveaxis(pixel, -1, 0) * np.array((columns, rows)).reshape(2, 1, 1))
        is_seen = (pixel >= 0).all(axis=-1) & example.places.is_present
        cell = np.clip(row, 0, rows - 1) * columns + np.clip(column, 0, columns - 1)
        is_patch = prompt.token_ids == self.processor.vocabulary.image.patch
        return PointingTarget(
            trigger=len(prompt.token_ids) - 1,
            image_tokens=np.flatnonzero(is_patch).reshape(len(example.images), -1),
            cell=np.where(is_seen, cell, -1).astype(np.int64),
            places=example.places,
        )


def draw_style(styles: Mapping[Style, float], rng: np.random.Generator) -> Style:
    """One of the styles, by their shares; where there is one only, nothing is drawn."""
    names, shares = list(styles), np.array(list(styles.values()))
    return names[0] if len(names) == 1 else names[rng.choice(len(names), p=shares / shares.sum())]


def followed_by(prompt: Encoded, answer: Int[np.ndarray, " n"]) -> Encoded:
    """A prompt with the tokens of its answer."""
    return Encoded(
        prompt=prompt.prompt,
        token_ids=np.concatenate((prompt.token_ids, answer)),
        image_mask=np.concatenate((prompt.image_mask, np.zeros(len(answer), bool))),
        crops=prompt.crops,
        pooling=prompt.pooling,
    )


def answer_weights(num_tokens: int) -> Float32[np.ndarray, " n"]:
    """2 / sqrt(n) for each of n tokens: long answers count for more than short ones, but less than n times (F.1)."""
    return np.full(num_tokens, 2 / np.sqrt(max(num_tokens, 1)), np.float32)


def flow_times(count: int, config: ModelConfig, rng: np.random.Generator) -> Float32[np.ndarray, " count"]:
    """Training times offset + spread · Beta(alpha, beta), denser near noise (training.md F.2)."""
    spread = min(config.flow_matching_cutoff, 1.0) - config.flow_matching_time_offset
    beta = rng.beta(config.flow_matching_beta_alpha, config.flow_matching_beta_beta, count)
    return (config.flow_matching_time_offset + spread * beta).astype(np.float32)
