"""The endless stream of robot examples: example `number` depends on the seed and on that number, and on nothing else.

So a run continues where it stopped, and ranks and workers share the work, by arithmetic (`molmoact2.data.turns`). What
is drawn for an example (order of the cameras, instruction) comes from a generator seeded by the seed and the number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.card import DatasetCard, card_for
from molmoact2.data.chunks import action_chunks
from molmoact2.data.datasets import open_dataset
from molmoact2.data.depth_labels import DepthLabels
from molmoact2.data.errors import require
from molmoact2.data.frame_cache import decode_frames, fingerprint
from molmoact2.data.language import Instructions, Language
from molmoact2.data.mixture import Group, Mixture
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.schema import CAMERA_PREFIX
from molmoact2.data.turns import Turns, key_of, permuted
from molmoact2.embodiments import EMBODIMENTS

CameraOrder: TypeAlias = Literal["fixed", "episode", "example"]
OWN_DRAWS = 0x726F626F74
"""Keeps what is drawn here apart from what others draw with the same seed and number."""


@dataclass(frozen=True, kw_only=True)
class RobotExample:
    """One observation of a robot and what it did next."""

    images: tuple[NDArray[np.uint8], ...]
    """[h, w, 3] RGB each, in the order in which the policy sees them."""
    state: NDArray[np.float32]
    """[state_dim] in robot units."""
    instruction: str
    actions: NDArray[np.float32]
    """[horizon, action_dim] in robot units, over the embodiment's horizon."""
    is_valid: NDArray[np.bool_]
    """[horizon] False beyond the end of the episode: no targets, a loss must leave them out."""
    tag: str
    """Embodiment."""
    origin: str
    """Dataset, episode and frame, for messages."""
    depth_codes: NDArray[np.int64] | None = None
    """[num_depth_codes] depth map of the first image, where one is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RobotSource:
    """The frames of one dataset, as examples of one robot."""

    name: str
    """Of the dataset; what is shuffled depends on it, and not on where the dataset is."""
    dataset: LeRobotDataset
    card: DatasetCard
    instructions: Instructions
    episodes: tuple[int, ...]
    """Episodes that examples are from, in ascending order."""
    frames: Mapping[str, NDArray[np.uint8]] | None = None
    """Camera -> [frames of these episodes, h, w, 3], from `decode_frames`; None decodes what is asked for."""
    size: tuple[int, int] | None = None
    """(height, width) that decoded images are scaled to; None keeps theirs."""
    camera_order: CameraOrder = "fixed"
    """The card's order, or shuffled anew for every episode or for every example."""
    frozen: tuple[int, ...] = ()
    """Episodes that were left out, because no camera shows anything happen."""
    depth: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Camera -> [frames of the dataset, cells] the depth map to say when it is the first of an example's cameras."""

    def __post_init__(self) -> None:
        require(bool(self.episodes), f"{self.name} has no episodes to learn from.")

    def __len__(self) -> int:
        """Number of frames."""
        return int(self._ends[-1])

    @property
    def fingerprint(self) -> str:
        """What changes when the dataset does, or its depth maps."""
        maps = [f", depth of {camera} {crc32(codes.tobytes()):08x}" for camera, codes in self.depth.items()]
        return "".join((fingerprint(self.dataset.root), *maps))

    @property
    def states(self) -> NDArray[np.float32]:
        """[frames, state_dim] of the episodes that are kept, in robot units."""
        return self._states[self.rows]

    @property
    def actions(self) -> NDArray[np.float32]:
        """[frames, action_dim] of the episodes that are kept, in robot units."""
        return self._actions[self.rows]

    @property
    def rows(self) -> NDArray[np.int64]:
        """[frames] rows in the dataset of the frames that are kept."""
        records = [self.dataset.episodes[index] for index in self.episodes]
        return np.concatenate([np.arange(record.from_index, record.to_index) for record in records])

    def example(self, position: int, number: int, seed: int) -> RobotExample:
        """The example of the frame at `position` among those that are kept, with what `seed` and `number` draw."""
        nth = int(np.searchsorted(self._ends, position, side="right"))
        record = self.dataset.episodes[self.episodes[nth]]
        row = record.to_index - (int(self._ends[nth]) - position)
        rng = np.random.default_rng((OWN_DRAWS, seed, number))
        cameras = self._cameras(record.episode_index, seed, rng)
        actions, is_pad = action_chunks(self._actions, [row], record.to_index, self.card.robot.action_horizon)
        return RobotExample(
            images=self._images(position, row, cameras),
            state=self._states[row],
            instruction=self.instructions.draw(row, rng),
            actions=actions[0].astype(np.float32, copy=False),
            is_valid=~is_pad[0],
            tag=self.card.tag,
            origin=f"{self.name}, episode {record.episode_index}, frame {row - record.from_index}",
            depth_codes=self.depth[cameras[0]][row] if cameras[0] in self.depth else None,
        )

    def _cameras(self, episode: int, seed: int, rng: np.random.Generator) -> list[str]:
        """The cameras of an example, in order."""
        choices = self.card.camera_sets
        cameras = choices[int(rng.integers(len(choices)))]
        match self.camera_order:
            case "fixed":
                return list(cameras)
            case "episode":
                keys = [CAMERA_PREFIX + camera for camera in cameras]
                rng = np.random.default_rng(key_of(self.name, seed, episode, *keys))
        return [cameras[i] for i in rng.permutation(len(cameras))]

    def _images(self, position: int, row: int, cameras: Sequence[str]) -> tuple[NDArray[np.uint8], ...]:
        if self.frames is not None:
            return tuple(np.array(self.frames[camera][position]) for camera in cameras)
        from molmoact2.processing.images import resize  # brings torch

        images = self.dataset.frame(row).images
        return tuple(resize(images[camera], self.size or images[camera].shape[:2]) for camera in cameras)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """[kept episodes] frames up to the end of each."""
        return np.cumsum([self.dataset.episodes[index].length for index in self.episodes])

    @cached_property
    def _states(self) -> NDArray[np.float32]:
        return self.card.states(self.dataset)

    @cached_property
    def _actions(self) -> NDArray[np.float32]:
        return self.card.actions(self.dataset)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an example is from."""

    source: int
    """Index of the source."""
    visit: int
    """How many examples of the source come before it."""
    position: int
    """Which of the source's frames it is."""


class RobotStream:
    """Examples of several sources, in the shares that are asked for."""

    def __init__(self, sources: Sequence[RobotSource], rates: Sequence[float], *, seed: int) -> None:
        """Mix `sources` by `rates`, which need not sum to 1.

        Raises:
            ValueError: a source is there twice, or has no rate above 0.
        """
        names = [source.name for source in sources]
        require(
            bool(names) and len(set(names)) == len(names), f"A stream needs sources of different names, got {names}."
        )
        require(len(rates) == len(names), f"Each of the {len(names)} sources needs a rate, got {len(rates)}.")
        self.sources, self.seed, self._turns = tuple(sources), seed, Turns(rates, seed=seed)

    @property
    def rates(self) -> NDArray[np.float64]:
        """[sources] share of each in the examples."""
        return self._turns.rates

    def place(self, number: int) -> Place:
        """Where example `number` is from."""
        source, visit = self._turns.at(number)
        epoch, turn = divmod(visit, len(self.sources[source]))
        key = key_of(self.sources[source].name, self.seed, epoch)
        return Place(source=source, visit=visit, position=permuted(turn, len(self.sources[source]), key))

    def example(self, number: int) -> RobotExample:
        """Example `number`.

        Raises:
            ValueError: naming the example and its file, when that is damaged.
        """
        place = self.place(number)
        return self.sources[place.source].example(place.position, number, self.seed)

    def tagged(self) -> dict[str, tuple[RobotSource, ...]]:
        """Tag -> the sources of that embodiment, which share statistics."""
        tags = dict.fromkeys(source.card.tag for source in self.sources)
        return {tag: tuple(source for source in self.sources if source.card.tag == tag) for tag in tags}

    def notes(self) -> list[str]:
        """What a user should know: which episodes are left out, and which datasets have no new instructions."""
        frozen = [
            f"{source.name}: {len(source.frozen)} of {len(source.frozen) + len(source.episodes)} episodes are left "
            "out, because no camera shows anything happen in them."
            for source in self.sources
            if source.frozen
        ]
        plain = [
            f"{source.name}: there are no new instructions, the recorded tasks are used."
            for source in self.sources
            if source.instructions.language != "task" and not source.instructions.is_annotated
        ]
        return frozen + plain


def open_source(
    dataset: LeRobotDataset,
    card: DatasetCard,
    *,
    episodes: Sequence[int] | None = None,
    cache_dir: Path | None = None,
    image_size: tuple[int, int] | None = None,
    language: Language = "task",
    camera_order: CameraOrder = "fixed",
    show_progress: bool = True,
    depth_labels: Path | None = None,
) -> RobotSource:
    """The examples of one dataset.

    Args:
        dataset: an open dataset.
        card: what it is to the policy.
        episodes: the episodes to learn from; None takes all. Those that are annotated as frozen are left out.
        cache_dir: folder for decoded images; None decodes every image when it is asked for.
        image_size: (height, width) that images are scaled to, best the size that the policy sees; None keeps theirs.
        language: what the policy is told.
        camera_order: whether cameras change places.
        show_progress: show a bar while decoding.
        depth_labels: folder of the dataset's depth maps (`molmoact2 depth label`), or of those of several datasets,
            each in a folder of the dataset's name.

    Raises:
        ValueError: there is nothing to learn from, videos are missing, files are damaged, or depth maps are of another
            dataset.
    """
    instructions = Instructions(dataset, language)
    asked = range(len(dataset.episodes)) if episodes is None else sorted(set(episodes))
    frozen = tuple(index for index in asked if index in instructions.frozen)
    kept = tuple(index for index in asked if index not in instructions.frozen)
    name = "/".join(dataset.root.resolve().parts[-2:])
    missing = sorted({*kept} - {*dataset.episodes_with_video})
    require(
        not missing,
        f"{name} has no video or no frames of the episodes {missing[:10]}. Copy them, or give "
        "episodes=dataset.episodes_with_video.",
    )
    require(bool(kept), f"{name} has no episodes to learn from: {len(frozen)} of {len(asked)} are annotated as frozen.")
    cached = {"size": image_size, "show_progress": show_progress}
    chosen = None if len(kept) == len(dataset.episodes) else kept
    return RobotSource(
        name=name,
        dataset=dataset,
        card=card,
        instructions=instructions,
        episodes=kept,
        frames=None if cache_dir is None else decode_frames(dataset, cache_dir, episodes=chosen, **cached),
        size=image_size,
        camera_order=camera_order,
        frozen=frozen,
        depth={} if depth_labels is None else depth_maps(depth_labels, dataset),
    )


def depth_maps(folder: Path, dataset: LeRobotDataset) -> dict[str, NDArray[np.int64]]:
    """Camera -> [frames, cells] the depth maps to say: those that are carried along where nothing changes."""
    is_companion = (folder / "meta").is_dir() or any(folder.glob("shard-*"))
    labels = DepthLabels.open(folder if is_companion else folder / dataset.root.name, dataset)
    return {camera: labels.buffer_codes(camera) for camera in labels.cameras}


def every_episode(_dataset: LeRobotDataset) -> None:
    """Choose all episodes."""


def open_stream(
    mixture: Mixture,
    *,
    seed: int,
    cache_dir: Path | None = None,
    image_size: tuple[int, int] | None = None,
    language: Language = "task",
    camera_order: CameraOrder = "fixed",
    show_progress: bool = True,
    depth_labels: Path | None = None,
    choose: Callable[[LeRobotDataset], Sequence[int] | None] = every_episode,
) -> RobotStream:
    """Open every dataset of a mixture and mix their examples; the arguments are those of `open_source`.

    `choose` says which episodes of a dataset are used; where it chooses none, the dataset is left out.

    Raises:
        ValueError: a group has no datasets, a dataset is damaged, its robot is unknown or another one than that of its
            group, or new instructions are asked for where there are none.
    """
    sources: list[RobotSource] = []
    rates: list[float] = []
    for group in mixture.groups:
        opened = []
        for dataset in map(open_dataset, group.folders()):
            card, episodes = _group_card(dataset, group), choose(dataset)
            if episodes is not None and not episodes:
                continue
            opened.append(
                open_source(
                    dataset,
                    card,
                    episodes=episodes,
                    cache_dir=cache_dir,
                    image_size=image_size,
                    language=language,
                    camera_order=camera_order,
                    show_progress=show_progress,
                    depth_labels=depth_labels,
                )
            )
        weights = np.array([group.weight(len(source)) for source in opened])
        rates += (group.rate * weights / weights.sum()).tolist()
        sources += opened
    stream = RobotStream(sources, rates, seed=seed)
    for tag, members in stream.tagged().items():
        _check_alike(tag, members, camera_order)
    has_language = language == "task" or any(source.instructions.is_annotated for source in sources)
    require(
        has_language,
        f"No dataset of {mixture.name!r} has new instructions, so language cannot be {language!r}. Write them with "
        '`molmoact2 data annotate`, or use "task".',
    )
    return stream


def _group_card(dataset: LeRobotDataset, group: Group) -> DatasetCard:
    """The card of a dataset, with the cameras of its group."""
    card = card_for(dataset, group.tag, cameras=group.cameras)
    return replace(card, cameras_alternative=group.cameras_alternative or card.cameras_alternative)


def _check_alike(tag: str, sources: Sequence[RobotSource], camera_order: CameraOrder) -> None:
    """Refuse sources of one tag that do not mean the same by it."""
    first = sources[0]
    for source in sources:
        robot, other = source.card.robot, first.card.robot
        is_alike = [robot.state_names, robot.action_names, robot.action_horizon, robot.control_mode] == [
            other.state_names, other.action_names, other.action_horizon, other.control_mode,
        ]  # fmt: skip
        require(
            is_alike,
            f"{source.name} and {first.name} are both {tag!r}, but differ in state, action, horizon or control mode. "
            "Statistics of one tag are pooled, so give one of them a tag of its own.",
        )
    orders = {source.card.robot.cameras for source in sources}
    is_open = tag in EMBODIMENTS and not EMBODIMENTS[tag].cameras
    require(
        camera_order != "fixed" or len(orders) == 1 or not is_open,
        f"Cameras of {tag!r} have no fixed order, and its datasets have {sorted(orders)[:3]}. Shuffle them with "
        'camera_order="episode", or name them for the group.',
    )
