"""Checkpoints appear whole or not at all, keep what they should, and refuse what is not theirs.

What two processes write and read is in `test_parallel.py`.
"""

import errno
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from molmoact2.training import pieces
from molmoact2.training.checkpoint import checksum, latest_checkpoint, load_checkpoint, read_progress, save_checkpoint
from molmoact2.training.optimizer import MovingAverage
from molmoact2.training.parallel import ALONE
from molmoact2.training.pieces import opened_pieces, read_into


class Small:
    """Two layers, the first frozen if wanted, and all that belongs to learning."""

    def __init__(self, *, is_frozen: bool = False, width: int = 5, seed: int = 0, fused: bool = True) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))
        self.model[0].requires_grad_(not is_frozen)
        self.modules = {"model": self.model, "heads": nn.Linear(1, 1)}
        learning = [p for module in self.modules.values() for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=0.1, fused=fused)
        self.average = MovingAverage(self.model, 0.5)
        self.steps = 0

    def learn(self, steps: int = 1) -> None:
        for _ in range(steps):
            inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(self.steps))
            self.optimizer.zero_grad()
            self.modules["heads"](self.model(inputs)).square().sum().backward()
            self.optimizer.step()
            self.average.update(self.model)
            self.steps += 1

    def save(self, folder: Path, **options) -> None:
        save_checkpoint(folder, self.modules, self.optimizer, self.average, {"step": self.steps}, **options)

    def load(self, checkpoint: Path | None) -> None:
        assert checkpoint is not None
        load_checkpoint(checkpoint, self.modules, self.optimizer, self.average)
        self.steps = read_progress(checkpoint)["step"]

    def everything(self) -> list[torch.Tensor]:
        parameters = [p.detach() for module in self.modules.values() for p in module.parameters()]
        moments = [value for state in self.optimizer.state_dict()["state"].values() for value in state.values()]
        return [tensor.clone() for tensor in (*parameters, *moments, *self.average.average.values())]


def are_equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_run_goes_on_bit_for_bit(tmp_path: Path, is_frozen: bool, fused: bool):
    whole = Small(is_frozen=is_frozen, fused=fused)
    whole.learn(2)
    whole.save(tmp_path)
    other = Small(is_frozen=is_frozen, fused=fused)
    other.load(latest_checkpoint(tmp_path))
    assert are_equal(whole.everything(), other.everything())
    whole.learn(2)
    other.learn(2)
    assert are_equal(whole.everything(), other.everything())
    assert whole.average.updates == other.average.updates == 4


def test_a_run_that_has_not_begun_can_be_saved(tmp_path: Path):
    first, second = Small(), Small(seed=1)
    first.save(tmp_path)
    second.load(latest_checkpoint(tmp_path))
    assert are_equal(first.everything(), second.everything())


def test_what_is_frozen_is_not_stored_but_checked(tmp_path: Path):
    run = Small(is_frozen=True)
    run.learn()
    run.save(tmp_path)
    checkpoint = latest_checkpoint(tmp_path)
    with opened_pieces(sorted(checkpoint.glob("parameters-*"))) as stored:
        learning = ("heads.bias", "heads.weight", "model.1.bias", "model.1.weight")
        assert sorted(stored) == [f"parameters.{name}" for name in learning]
    with pytest.raises(ValueError, match="other frozen weights"):
        Small(is_frozen=True, seed=1).load(checkpoint)
    with pytest.raises(ValueError, match="other parts of it were trained"):
        Small().load(checkpoint)


def test_the_checksum_sees_a_bit_and_only_what_is_frozen():
    run = Small(is_frozen=True)
    before = checksum(run.modules)
    with torch.no_grad():
        run.model[1].weight.add_(1)
        assert checksum(run.modules) == before
        run.model[0].weight[0, 0] = torch.nextafter(run.model[0].weight[0, 0], torch.tensor(1e9))
    assert checksum(run.modules) != before


@pytest.mark.parametrize("keep", [1, 2, 10])
def test_the_newest_are_kept(tmp_path: Path, keep: int):
    run = Small()
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(4):
        run.learn()
        run.save(tmp_path, keep=keep)
    steps = [f"step-{step:07d}" for step in range(1, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", *steps[-keep:]]
    assert latest_checkpoint(tmp_path) == tmp_path / steps[-1]


def test_saving_a_step_again_replaces_it_and_forgets_what_came_after(tmp_path: Path):
    run = Small()
    run.learn(2)
    run.save(tmp_path)
    other = Small(seed=1)
    other.learn(1)
    other.save(tmp_path, keep=5)
    other.save(tmp_path, keep=5)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]
    run.load(latest_checkpoint(tmp_path))
    assert are_equal(run.everything(), other.everything())


def test_no_checkpoint_is_none(tmp_path: Path):
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / ".writing-step-0000007").mkdir()
    assert latest_checkpoint(tmp_path) is None


def saved(folder: Path) -> Path:
    run = Small()
    run.learn()
    run.save(folder)
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    return checkpoint


FILES = ["parameters", "average", "exp_avg", "exp_avg_sq", "step"]


@pytest.mark.parametrize("name", [f"{kind}-00000-of-00001.safetensors" for kind in FILES] + ["progress.json"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "removed", "overwritten"])
def test_a_damaged_file_is_refused_and_nothing_changes(tmp_path: Path, name: str, damage: str):
    path = saved(tmp_path) / name
    content = path.read_bytes()
    other = Small(seed=1)
    before = other.everything()
    match damage:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "removed":
            path.unlink()
        case "overwritten":
            path.write_bytes(b"\xff" * len(content))
    with pytest.raises(ValueError, match="damaged"):
        other.load(path.parent)
    assert are_equal(before, other.everything())


@pytest.mark.parametrize("document", [[], {}, {"step": 1, "stored": 3}, {"step": 1, "stored": {"files": []}}])
def test_progress_that_says_something_else_is_refused(tmp_path: Path, document):
    checkpoint = saved(tmp_path)
    (checkpoint / "progress.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="damaged"):
        Small().load(checkpoint)


def test_another_network_is_refused(tmp_path: Path):
    checkpoint = saved(tmp_path)
    other = Small(width=6)
    before = other.everything()
    with pytest.raises(ValueError, match="another network"):
        other.load(checkpoint)
    assert are_equal(before, other.everything())


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Small()
    run.learn()
    run.save(tmp_path)
    saved = run.everything()
    run.learn()
    calls = []

    def full_at_the_third(*args: object, **options: object) -> None:
        calls.append(args)
        save_file = full if len(calls) == 3 else original
        save_file(*args, **options)

    original = pieces.save_file
    monkeypatch.setattr(pieces, "save_file", full_at_the_third)
    with pytest.raises(OSError, match="No space left"):
        run.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000001"]
    run.load(latest_checkpoint(tmp_path))
    assert are_equal(saved, run.everything())


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from test_stored_run import Small
torch.set_num_threads(1)
run = Small(width=20_000)
run.learn()
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    run.save(Path(sys.argv[1]))
except OSError as error:
    print(error)
"""


def test_a_write_that_the_system_refuses_is_an_oserror(tmp_path: Path):
    result = python(LIMITED, tmp_path)
    assert "could not be written" in result.stdout, result.stderr
    assert "File too large" in result.stdout
    assert list(tmp_path.iterdir()) == []


SAVES_FOR_EVER = """
import sys
from pathlib import Path
from test_stored_run import Small
run = Small(width=50_000)
print("ready", flush=True)
while True:
    run.learn()
    run.save(Path(sys.argv[1]))
    run.save(Path(sys.argv[1]))
"""


def python(script: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def one_thread():
    """Sums of many numbers depend on the number of threads, which other tests may have changed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_killed_at_any_moment_the_newest_checkpoint_is_whole(tmp_path: Path):
    rng = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVES_FOR_EVER, str(tmp_path)], cwd=Path(__file__).parent, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        while latest_checkpoint(tmp_path) is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.05, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        run = Small(width=50_000)
        run.load(latest_checkpoint(tmp_path))
        again = Small(width=50_000)
        again.learn(run.steps)
        assert are_equal(run.everything(), again.everything())


@given(rows=st.integers(0, 12), size=st.integers(1, 5), readers=st.integers(1, 5))
def test_pieces_of_any_number_of_ranks_make_pieces_for_any_other(tmp_path_factory, rows, size, readers):
    folder = tmp_path_factory.mktemp("pieces")
    whole = torch.arange(rows * 2.0).reshape(rows, 2)
    for rank, part in enumerate(cut(whole, size)):
        pieces.save_file({"x": part}, folder / f"{rank}", metadata={"rows": json.dumps(
            {"x": {"first_row": sum(len(p) for p in cut(whole, size)[:rank]), "shape": [rows, 2]}})})  # fmt: skip
    with (
        opened_pieces([folder / f"{rank}" for rank in reversed(range(size))]) as stored,
        pytest.MonkeyPatch.context() as m,
    ):
        assert stored["x"].shape == (rows, 2)
        for reader, part in enumerate(cut(whole, readers)):
            m.setattr(pieces, "first_row", lambda _, r=reader: sum(len(p) for p in cut(whole, readers)[:r]))
            target = torch.full_like(part, -1)
            read_into("x", stored["x"], target)
            assert torch.equal(target, part)


def cut(whole: torch.Tensor, size: int) -> list[torch.Tensor]:
    """The rows as FSDP2 deals them out; the last ranks may have none."""
    per_rank = -(-len(whole) // size)
    return [whole[rank * per_rank : (rank + 1) * per_rank].clone() for rank in range(size)]


def test_rows_that_are_missing_or_there_twice_are_refused(tmp_path: Path):
    for names in (["a"], ["a", "a2", "b"], ["b"]):
        for name, first in (("a", 0), ("a2", 0), ("b", 2)):
            about = json.dumps({"x": {"first_row": first, "shape": [4]}})
            pieces.save_file({"x": torch.ones(2)}, tmp_path / name, metadata={"rows": about})
        with (
            pytest.raises(ValueError, match="rows of 1 tensors are missing"),
            opened_pieces([tmp_path / n for n in names]),
        ):
            pass


def test_alone_everything_is_written(tmp_path: Path):
    tensors = {"number": torch.tensor(3.0), "vector": torch.arange(4.0), "nothing": torch.zeros(0, 3)}
    pieces.write_pieces(tmp_path / "x", tensors, ALONE)
    with opened_pieces([tmp_path / "x"]) as stored:
        for name, tensor in tensors.items():
            target = torch.full_like(tensor, -1)
            read_into(name, stored[name], target)
            assert torch.equal(target, tensor)
