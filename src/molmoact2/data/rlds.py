"""RLDS data sets (Open X-Embodiment, BridgeData): folders of TFRecord files that `features.json` describes.

dataset_info.json                                name, and how many episodes each file of each split holds
features.json                                    what an episode is: features of every step, and of the whole
bridge_dataset-train.tfrecord-00000-of-00001     an episode per record; a feature has the values of all its steps
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2 import registry
from molmoact2.data.errors import expect, malformed
from molmoact2.data.files import read_json
from molmoact2.data.pictures import decode_picture
from molmoact2.data.tfrecord import Values, read_examples

FEATURES_FILE = "features.json"
DATASET_FILE = "dataset_info.json"
STEPS = "steps"
OTHER = "other"
NUMBERS = re.compile(r"bool|float(16|32|64)|u?int(8|16|32|64)")


@dataclass(frozen=True, kw_only=True)
class StepFeature:
    """What every step of an episode has one of."""

    kind: str
    """ "tensor", "image", "text", or "other" for what is not read here."""
    shape: tuple[int, ...] = ()
    """Of one step; empty for a single number. -1 where it may vary."""
    dtype: str = ""
    """Of a tensor, as numpy calls it."""


@dataclass(frozen=True, kw_only=True)
class RldsEpisode:
    """One record: the values of all steps, feature by feature, decoded when asked for."""

    path: Path
    offset: int
    """Byte of the file at which its record begins."""
    features: Mapping[str, StepFeature]
    """Name, such as "observation/state" -> what it is."""
    values: Mapping[str, Values]
    """Name in the record, such as "steps/observation/state" -> values of all steps, one after the other."""

    def numbers(self, name: str) -> NDArray[Any]:
        """A tensor [T, *shape] in the dtype that `features.json` gives."""
        feature, values = self._feature(name, "tensor"), self._values(name)
        size = math.prod(feature.shape)
        kind = np.asarray(values).dtype.kind if len(values) else "empty"
        self._expect(kind in ("f" if feature.dtype.startswith("float") else "i"), name, f"not {feature.dtype}: {kind}")
        fits = size > 0 and len(values) % size == 0
        self._expect(fits, name, f"{len(values)} numbers, which do not make steps of shape {list(feature.shape)}")
        return np.asarray(values).reshape(-1, *feature.shape).astype(feature.dtype)

    def texts(self, name: str) -> list[str]:
        """A text per step."""
        self._feature(name, "text")
        try:
            return [text.decode("utf-8") for text in self._bytes(name)]
        except UnicodeDecodeError as error:
            raise self._wrong(name, f"no text ({error})") from error

    def images(self, name: str) -> NDArray[np.uint8]:
        """Pictures [T, height, width, 3] RGB; they must have the size that `features.json` gives, if it gives one."""
        feature = self._feature(name, "image")
        try:
            pictures = [decode_picture(content) for content in self._bytes(name)]
        except ValueError as error:
            raise self._wrong(name, str(error)) from error
        shapes = {picture.shape for picture in pictures}
        fits = len(shapes) == 1 and all(
            want in (-1, side) for shape in shapes for want, side in zip(feature.shape, shape, strict=True)
        )
        self._expect(fits, name, f"pictures of the shapes {sorted(shapes)}, not all {list(feature.shape)}")
        return np.stack(pictures)

    def _feature(self, name: str, kind: str) -> StepFeature:
        if name not in self.features:
            raise registry.unknown("feature of steps", name, self.features)
        found = self.features[name].kind
        path = self.path.with_name(FEATURES_FILE)
        expect(found == kind, path, f"the feature {name!r} is {found}, not {kind}", "Map another feature.")
        return self.features[name]

    def _bytes(self, name: str) -> list[bytes]:
        values = self._values(name)
        if not isinstance(values, list):
            raise self._wrong(name, "numbers, not bytes")
        return values

    def _values(self, name: str) -> Values:
        key = f"{STEPS}/{name}"
        self._expect(key in self.values, name, "missing")
        return self.values[key]

    def _expect(self, is_right: bool, name: str, problem: str) -> None:
        if not is_right:
            raise self._wrong(name, problem)

    def _wrong(self, name: str, problem: str) -> ValueError:
        return malformed(self.path, f"in the record at byte {self.offset}, {name!r} is {problem}")


@dataclass(frozen=True, kw_only=True)
class RldsFolder:
    """An RLDS data set on disk."""

    name: str
    """As its builder calls it, for instance "bridge_dataset"."""
    features: Mapping[str, StepFeature]
    """Features of every step, by name."""
    shards: Mapping[str, tuple[tuple[Path, int], ...]]
    """Split -> its files, each with the number of episodes in it."""

    def num_episodes(self, splits: tuple[str, ...]) -> int:
        """Episodes of these splits."""
        return sum(count for split in splits for _, count in self.files(split))

    def files(self, split: str) -> tuple[tuple[Path, int], ...]:
        """The files of a split, each with its number of episodes; ValueError where there is no such split."""
        if split not in self.shards:
            raise registry.unknown("split", split, self.shards)
        return self.shards[split]

    def episodes(self, splits: tuple[str, ...]) -> Iterator[RldsEpisode]:
        """All episodes of these splits, in order. Raises ValueError, naming the file, where one is damaged."""
        for path, expected in (file for split in splits for file in self.files(split)):
            found = 0
            for offset, values in read_examples(path):
                yield RldsEpisode(path=path, offset=offset, features=self.features, values=values)
                found += 1
            expect(found == expected, path, f"it holds {found} episodes, {DATASET_FILE} promises {expected}")


def is_rlds(folder: Path) -> bool:
    """Whether a folder says that it is an RLDS data set."""
    return (folder / FEATURES_FILE).is_file()


def open_rlds(folder: Path) -> RldsFolder:
    """Read what an RLDS data set is. Raises ValueError, naming the file, when files are missing or damaged."""
    info, path = read_json(folder / DATASET_FILE), folder / DATASET_FILE
    try:
        name = str(info["name"])
        lengths = {split["name"]: [int(count) for count in split["shardLengths"]] for split in info["splits"]}
    except (KeyError, TypeError, ValueError) as error:
        raise malformed(path, "it does not say the name, and the splits with their shardLengths") from error
    shards = {split: tuple(_shards(folder, name, split, counts)) for split, counts in lengths.items()}
    return RldsFolder(name=name, features=read_step_features(folder / FEATURES_FILE), shards=shards)


def read_step_features(path: Path) -> dict[str, StepFeature]:
    """Read `features.json`: name of a feature of the steps, such as "observation/state" -> what it is."""
    try:
        steps = read_json(path)["featuresDict"]["features"][STEPS]["sequence"]["feature"]
        return dict(_flattened(steps, ""))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"it does not describe episodes of steps ({type(error).__name__}: {error})"
        raise malformed(path, problem, "Is this the folder of a version of an RLDS data set, such as 1.0.0?") from error


def _shards(folder: Path, name: str, split: str, counts: list[int]) -> Iterator[tuple[Path, int]]:
    for number, count in enumerate(counts):
        path = folder / f"{name}-{split}.tfrecord-{number:05d}-of-{len(counts):05d}"
        expect(path.is_file(), path, "the file is missing")
        yield path, count


def _flattened(feature: Mapping[str, Any], name: str) -> Iterator[tuple[str, StepFeature]]:
    """The leaves of a tree of features, named by their path."""
    match feature:
        case {"featuresDict": {"features": parts}}:
            for part, inner in parts.items():
                yield from _flattened(inner, f"{name}/{part}".removeprefix("/"))
        case {"tensor": {"dtype": str() as dtype, "encoding": "none"} as tensor} if NUMBERS.fullmatch(dtype):
            yield name, StepFeature(kind="tensor", shape=_shape(tensor), dtype=dtype)
        case {"image": {"dtype": "uint8"} as image} if _shape(image)[-1:] == (3,):
            yield name, StepFeature(kind="image", shape=_shape(image))
        case {"text": _} | {"tensor": {"dtype": "string" | "object", "shape": {"dimensions": []} | {}}}:
            yield name, StepFeature(kind="text")
        case _:
            yield name, StepFeature(kind=OTHER)


def _shape(described: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(side) for side in described["shape"].get("dimensions", ()))
