"""Examples are a function of seed and number: shares, epochs, resuming and sharing the work follow from arithmetic."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.data import DatasetSchema, DatasetWriter, Episode, LeRobotDataset, action_chunks
from molmoact2.data.annotated_tasks import ALL_FROZEN, write_annotations
from molmoact2.data.card import card_for
from molmoact2.data.mixture import Group, Mixture
from molmoact2.data.robot_stream import RobotStream, open_source, open_stream
from molmoact2.data.turns import Turns, floor_sum, numbers_of, permuted
from molmoact2.embodiments import SO_JOINTS
from molmoact2.processing.images import resize

CAMERAS = ("front", "side", "wrist")


def record(root: Path, lengths: list[int], *, cameras: tuple[str, ...] = CAMERAS, robot_type: str = "so101") -> Path:
    """A dataset in which the state counts the frames and every camera has a brightness of its own."""
    schema = DatasetSchema(
        fps=30,
        robot_type=robot_type,
        state_names=SO_JOINTS,
        action_names=SO_JOINTS,
        image_sizes=dict.fromkeys(cameras, (32, 32)),
    )
    total = 0
    with DatasetWriter(root, schema) as writer:
        for number, length in enumerate(lengths):
            rows = np.arange(total, total + length, dtype=np.float32)[:, None]
            levels = {camera: 40 + 60 * i for i, camera in enumerate(cameras)}
            writer.add_episode(
                Episode(
                    images={name: np.full((length, 32, 32, 3), level, np.uint8) for name, level in levels.items()},
                    state=np.repeat(rows, 6, axis=1),
                    action=np.repeat(rows, 6, axis=1) + np.arange(6, dtype=np.float32) / 8,
                    task=("lift", "push")[number % 2],
                )
            )
            total += length
    return root


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two datasets of 23 and 6 frames."""
    root = tmp_path_factory.mktemp("mixed")
    return str(record(root / "large", [9, 4, 10])), str(record(root / "small", [6]))


@pytest.fixture
def stream(folders) -> RobotStream:
    return open_stream(mixture_of(*folders), seed=3)


def mixture_of(*folders: str, **options) -> Mixture:
    return Mixture(name="test", groups=(Group(tag="so100_so101_molmoact2", rate=1, datasets=folders, **options),))


def is_same(a, b) -> bool:
    return (
        a.origin == b.origin
        and a.instruction == b.instruction
        and all(
            np.array_equal(x, y)
            for x, y in zip((*a.images, a.state, a.actions), (*b.images, b.state, b.actions), strict=True)
        )
    )


@given(
    n=st.integers(0, 200), modulus=st.integers(1, 50), a=st.integers(0, 300), b=st.integers(-300, 300),
)  # fmt: skip
def test_sums_of_floors(n, modulus, a, b):
    assert floor_sum(n, modulus, a, b) == sum((a * i + b) // modulus for i in range(n))


@given(size=st.integers(1, 300), key=st.integers(0, 2**64 - 1))
def test_permutations_permute(size, key):
    assert sorted(permuted(index, size, key) for index in range(size)) == list(range(size))


def test_permutations_look_random():
    size = 1000
    orders = np.array([[permuted(index, size, key << 20) for index in range(size)] for key in range(8)])
    apart = np.abs(np.corrcoef(np.vstack([orders, np.arange(size)])) - np.eye(9))
    assert apart.max() < 0.12, "correlations of independent permutations of 1000 are 0.03 on average"
    steps = np.abs(np.diff(orders, axis=1)).mean()
    assert abs(steps - size / 3) < 15, "neighbours of a random permutation are a third of the range apart"


@given(rates=st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=5), seed=st.integers(0, 99), count=st.integers(1, 300))
def test_turns_are_counted_right_and_shared_evenly(rates, seed, count):
    turns, seen = Turns(rates, seed=seed), Counter()
    for number in range(count):
        source, visit = turns.at(number)
        assert visit == seen[source]
        seen[source] += 1
    for source, rate in enumerate(turns.rates):
        assert abs(seen[source] - rate * count) < 5, "independent draws would be off by up to sqrt(count)"


def test_far_away_turns_are_found_at_once():
    turns = Turns([0.3, 0.3, 0.3, 0.1], seed=0)
    number = 10**11
    source, visit = turns.at(number)
    assert abs(visit - turns.rates[source] * number) < 20


def test_every_frame_once_per_epoch(stream):
    positions: dict[int, list[int]] = {0: [], 1: []}
    for number in range(120):
        place = stream.place(number)
        assert place.visit == len(positions[place.source])
        positions[place.source].append(place.position)
    for source, found in positions.items():
        size = len(stream.sources[source])
        epochs = [found[first : first + size] for first in range(0, len(found) - size + 1, size)]
        assert len(epochs) >= 2
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_examples_are_what_the_dataset_holds(stream):
    for number in range(40):
        example, place = stream.example(number), stream.place(number)
        source = stream.sources[place.source]
        row = int(example.state[0])
        assert row == place.position, "all episodes are kept, so positions are rows"
        chunk, is_pad = action_chunks(source.dataset.actions, [row], source.dataset.episode_ends[row], 30)
        np.testing.assert_array_equal(example.actions, chunk[0])
        np.testing.assert_array_equal(example.is_valid, ~is_pad[0])
        frame = source.dataset.frame(row)
        assert example.instruction == frame.task
        assert example.tag == "so100_so101_molmoact2"
        assert example.origin == f"{source.name}, episode {frame.episode_index}, frame {frame.frame_index}"
        for image, camera in zip(example.images, CAMERAS, strict=True):
            np.testing.assert_array_equal(image, frame.images[camera])


@pytest.mark.parametrize(("num_ranks", "num_workers"), [(1, 1), (1, 3), (4, 1), (3, 2)])
@pytest.mark.parametrize("start", [0, 17])
def test_any_split_gives_the_same_examples_in_the_same_order(num_ranks, num_workers, start):
    ranks = []
    for rank in range(num_ranks):
        share = {"start": start, "rank": rank, "num_ranks": num_ranks, "num_workers": num_workers}
        workers = [numbers_of(worker=worker, **share) for worker in range(num_workers)]
        ranks.append(next(numbers) for numbers in itertools.cycle(workers))
    together = [next(numbers) for numbers in itertools.islice(itertools.cycle(ranks), 48)]
    assert together == list(range(start, start + 48))


def test_resuming_in_the_middle_changes_nothing(folders, stream):
    options = {"seed": 3, "camera_order": "example"}
    whole = [open_stream(mixture_of(*folders), **options).example(number) for number in range(30)]
    resumed = open_stream(mixture_of(*folders), **options)
    for number in (29, 12, 20, 12):
        assert is_same(resumed.example(number), whole[number])
    other = open_stream(mixture_of(*folders), seed=4)
    assert [other.place(n) for n in range(30)] != [stream.place(n) for n in range(30)]


def test_another_dataset_leaves_the_order_of_this_one(folders):
    alone, both = open_stream(mixture_of(folders[1]), seed=3), open_stream(mixture_of(*folders), seed=3)
    of_small = [place.position for place in map(both.place, range(99)) if place.source == 1]
    assert of_small[:6] == [alone.place(number).position for number in range(6)]


@pytest.mark.parametrize(
    ("size_factor", "weights"), [(None, [23**0.5, 6**0.5]), (0, [1, 1]), (0.25, [5.75**0.5, 1.5**0.5]), (9, [3, 3])]
)
def test_shares_within_a_group(folders, size_factor, weights):
    rates = open_stream(mixture_of(*folders, size_factor=size_factor), seed=0).rates
    np.testing.assert_allclose(rates, np.array(weights) / sum(weights))


def test_shares_of_groups(folders, tmp_path):
    arm = str(record(tmp_path / "arm", [5], robot_type="other"))
    groups = (
        Group(tag="", rate=3, datasets=folders, size_factor=0),
        Group(tag="new:arm", rate=1, datasets=(arm,)),
    )
    stream = open_stream(Mixture(name="two", groups=groups), seed=0)
    np.testing.assert_allclose(stream.rates, [0.375, 0.375, 0.25])
    assert {tag: len(sources) for tag, sources in stream.tagged().items()} == {"so100_so101_molmoact2": 2, "arm": 1}


def test_decoded_before_is_the_same(folders, tmp_path, stream):
    cached = open_stream(mixture_of(*folders), seed=3, cache_dir=tmp_path, show_progress=False)
    scaled = [
        open_stream(mixture_of(*folders), seed=3, cache_dir=folder, image_size=(20, 28), show_progress=False)
        for folder in (tmp_path, None)
    ]
    for number in range(12):
        plain = stream.example(number)
        assert is_same(cached.example(number), plain)
        for other in scaled:
            for small, image in zip(other.example(number).images, plain.images, strict=True):
                np.testing.assert_array_equal(small, resize(image, (20, 28)))


def test_kept_episodes_only(folders, tmp_path):
    dataset = LeRobotDataset(folders[0])
    card = card_for(dataset)
    for cache_dir in (None, tmp_path):
        source = open_source(dataset, card, episodes=[2, 0], cache_dir=cache_dir, show_progress=False)
        assert source.episodes == (0, 2)
        assert len(source) == 19
        rows = [int(source.example(position, 0, 0).state[0]) for position in range(19)]
        assert rows == source.rows.tolist() == [*range(9), *range(13, 23)]
        np.testing.assert_array_equal(source.states[:, 0], rows)
        np.testing.assert_array_equal(source.actions, dataset.actions[rows])


def levels(example) -> tuple[int, ...]:
    return tuple(int(image.mean().round(-1)) for image in example.images)


def test_cameras_change_places_once_per_episode_or_per_example(folders):
    orders: dict[str, dict[str, set]] = {}
    for camera_order in ("fixed", "episode", "example"):
        stream = open_stream(mixture_of(*folders), seed=0, camera_order=camera_order)
        seen: dict[str, set] = {}
        for number in range(90):
            example = stream.example(number)
            seen.setdefault(example.origin.split(", frame")[0], set()).add(levels(example))
        orders[camera_order] = seen
        assert all({tuple(sorted(order)) for order in found} == {(40, 100, 160)} for found in seen.values())
    assert set.union(*orders["fixed"].values()) == {(40, 100, 160)}
    assert all(len(found) == 1 for found in orders["episode"].values())
    assert len(set.union(*orders["episode"].values())) > 1
    assert len(set.union(*orders["example"].values())) == 6


def test_alternative_cameras_in_half_of_the_examples(folders):
    options = {"cameras": ("front", "wrist"), "cameras_alternative": ("side", "wrist")}
    stream = open_stream(mixture_of(*folders, **options), seed=0)
    found = Counter(levels(stream.example(number)) for number in range(200))
    assert set(found) == {(40, 160), (100, 160)}
    assert 70 < found[40, 160] < 130


def annotated(tmp_path, texts: dict[int, str]) -> Path:
    root = record(tmp_path / "annotated", [4, 4, 4, 4])
    dataset = LeRobotDataset(root)
    columns = {name: dataset.column(name) for name in ("task_index", "episode_index")}
    write_annotations(root, texts, **columns)
    return root


def test_frozen_episodes_are_left_out_and_said(tmp_path):
    root = annotated(tmp_path, {0: "raise it", 1: ALL_FROZEN, 2: "lift it up"})
    stream = open_stream(mixture_of(str(root)), seed=0, language="sampled")
    assert stream.sources[0].frozen == (1,)
    assert len(stream.sources[0]) == 12
    assert any("1 of 4 episodes" in note for note in stream.notes())
    told: dict[int, set[str]] = {}
    for number in range(120):
        example = stream.example(number)
        told.setdefault(int(example.state[0]) // 4, set()).add(example.instruction)
    assert told == {0: {"raise it", "lift it up"}, 2: {"raise it", "lift it up"}, 3: {"push"}}


def test_datasets_without_new_instructions_are_said(folders, tmp_path):
    root = annotated(tmp_path, {0: "raise it"})
    stream = open_stream(mixture_of(str(root), folders[1]), seed=0, language="annotated")
    assert [note for note in stream.notes() if "no new instructions" in note] == [
        f"{stream.sources[1].name}: there are no new instructions, the recorded tasks are used."
    ]


def refused(message: str, *folders: str, **options) -> None:
    with pytest.raises(ValueError, match=message):
        open_stream(mixture_of(*folders), seed=0, **options)


def test_what_cannot_be_mixed_is_refused(folders, tmp_path):
    refused("No dataset of 'test' has new instructions", *folders, language="annotated")
    refused("names .* twice", folders[0], folders[0])
    refused("neither a folder nor a hub id", str(tmp_path / "nowhere" / "here"))
    frozen = annotated(tmp_path, dict.fromkeys(range(4), ALL_FROZEN))
    refused("4 of 4 are annotated as frozen", str(frozen))
    others = str(record(tmp_path / "others", [4], cameras=("top",)))
    refused("no fixed order", folders[0], others)
    assert len(open_stream(mixture_of(folders[0], others), seed=0, camera_order="episode").sources) == 2


def test_missing_videos_are_refused_before_training(tmp_path):
    root = record(tmp_path / "torn", [4, 4])
    next((root / "videos" / "observation.images.side").rglob("*.mp4")).unlink()
    refused("no video", str(root))


def test_one_tag_means_one_thing(folders, tmp_path):
    card = tmp_path / "short.toml"
    card.write_text('tag = "so100_so101_molmoact2"\naction_horizon = 10\nn_action_steps = 10\n')
    groups = (
        Group(tag="so100_so101_molmoact2", rate=1, datasets=(folders[0],)),
        Group(tag=str(card), rate=1, datasets=(folders[1],)),
    )
    with pytest.raises(ValueError, match="a tag of its own"):
        open_stream(Mixture(name="x", groups=groups), seed=0)


def test_a_broken_stream_is_refused(stream):
    with pytest.raises(ValueError, match="numbered from 0"):
        stream.example(-1)
    with pytest.raises(ValueError, match="different names"):
        RobotStream([stream.sources[0]] * 2, [1, 1], seed=0)
    with pytest.raises(ValueError, match="needs a rate"):
        RobotStream(stream.sources, [1], seed=0)
    with pytest.raises(ValueError, match="above 0"):
        RobotStream(stream.sources, [1, 0], seed=0)
