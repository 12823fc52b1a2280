"""Two processes learn what one learns: the same losses, weights and checkpoints, whatever each of them has to do.

Two gloo processes on the CPU run all of `scale_run.TASKS` in one go; each test compares one of them with one process.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from scale_run import ScaleRun, make_checkpoint
from torch import nn

from molmoact2.training.gradients import clip_gradients
from molmoact2.training.parallel import ALONE, join_world
from molmoact2.training.pieces import opened_pieces

HERE = Path(__file__).parent
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SAME = 1e-6
"""Relative difference of losses that rounding in another order may make."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one process and then two have run."""
    folder = tmp_path_factory.mktemp("scale")
    make_checkpoint(folder / "start")
    run = ScaleRun(folder / "start")
    run.steps_to(2)
    run.save(folder / "by-one")
    command = [*TORCHRUN, str(HERE / "scale_run.py"), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def said(folder: Path, task: str, rank: int = 0) -> dict:
    return json.loads((folder / f"{task}-{rank}.json").read_text())


@pytest.mark.parametrize("task", ["start_from_nothing", "measured"])
def test_two_processes_learn_what_one_learns(folder: Path, task: str):
    losses = ScaleRun(folder / "start").steps_to(3)
    assert losses[2] < losses[0]
    for rank in (0, 1):
        assert said(folder, task, rank)["losses"] == pytest.approx(losses, rel=SAME)


def test_parts_that_a_rank_has_nothing_for_stay_in_step(folder: Path):
    losses = ScaleRun(folder / "start", is_uneven=True).steps_to(3)
    assert said(folder, "uneven")["losses"] == pytest.approx(losses, rel=SAME)


def test_gradients_reach_a_block_through_what_it_remembers_alone(folder: Path):
    losses = ScaleRun(folder / "start", acts_only=True).steps_to(2)
    told = said(folder, "acting_only")
    assert told["losses"] == pytest.approx(losses, rel=SAME)
    assert told["moved"] == [], "the language head must not even decay: no loss has reached it"


def test_frozen_parts_stay_out_of_it(folder: Path):
    losses = ScaleRun(folder / "start", frozen="text.").steps_to(2)
    assert said(folder, "frozen_decoder")["losses"] == pytest.approx(losses, rel=SAME)
    run = ScaleRun(folder / "start", frozen="text.")
    run.load(folder / "frozen-by-two")
    assert run.steps_to(2) == pytest.approx(losses[1:], rel=SAME)
    (checkpoint,) = (folder / "frozen-by-two").iterdir()
    with opened_pieces(sorted(checkpoint.glob("parameters-*"))) as stored:
        assert not [name for name in stored if ".text." in name]


def test_the_norms_of_gradients_are_those_of_the_whole(folder: Path):
    run = ScaleRun(folder / "start")
    run.steps_to(3)
    norms = said(folder, "start_from_nothing")["norms"]
    assert norms == said(folder, "start_from_nothing", rank=1)["norms"]
    assert norms == pytest.approx(run.norms, rel=1e-4)
    assert norms.keys() == {"vision", "connector", "decoder", "expert"}


def test_mixed_precision_keeps_float32_and_stays_close(folder: Path):
    told = said(folder, "in_bfloat16")
    assert told["dtypes"] == ["torch.float32"]
    losses = ScaleRun(folder / "start", dtype=torch.bfloat16).steps_to(2)
    assert told["losses"] == pytest.approx(losses, rel=0.02)


def test_measuring_leaves_the_shards_alone(folder: Path):
    assert said(folder, "measured")["kinds"] == ["DTensor"]
    run = ScaleRun(folder / "start")
    with torch.no_grad():
        loss = run.loss([0, 1], {"examples": 1, "speaking": 1, "actions": 1})
    assert said(folder, "measured")["measured"] == pytest.approx(float(loss), rel=SAME)


def test_a_checkpoint_of_one_process_goes_through_two_and_back_bit_for_bit(folder: Path):
    before, after = ScaleRun(folder / "start"), ScaleRun(folder / "start")
    before.load(folder / "by-one")
    after.load(folder / "by-one-then-two")
    assert len(list((folder / "by-one-then-two").glob("step-*/*-of-00002.safetensors"))) == 10
    one, two = before.whole(), after.whole()
    assert one.keys() == two.keys()
    assert {name.split(".")[0] for name in one} == {"parameters", "average", "exp_avg", "exp_avg_sq", "step"}
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert before.average.updates == after.average.updates == 2


def test_a_run_continues_on_another_number_of_processes(folder: Path):
    last = ScaleRun(folder / "start").steps_to(3)[2:]
    assert said(folder, "continue_from_one")["losses"] == pytest.approx(last, rel=SAME)
    run = ScaleRun(folder / "start")
    run.load(folder / "by-two")
    assert run.steps_to(3) == pytest.approx(last, rel=SAME)


def test_a_rank_that_cannot_write_fails_the_others_and_keeps_what_was_there(folder: Path):
    told = [said(folder, "one_fails_to_write", rank) for rank in (0, 1)]
    assert "1 of 2 ranks failed" in told[0]["error"]
    assert "No space left" in told[1]["error"]
    assert told[0]["left"] == ["step-0000000"]


DIES = """
import time
import torch
from molmoact2.training.parallel import join_world
with join_world("cpu", timeout_s=60) as world:
    world.barrier()
    if world.rank == 1:
        raise RuntimeError("the data of rank 1 are damaged")
    world.sum(torch.ones(1))
"""


def test_nobody_waits_for_a_rank_that_died(tmp_path: Path):
    script = tmp_path / "dies.py"
    script.write_text(DIES)
    began = time.monotonic()
    result = subprocess.run([*TORCHRUN, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode != 0
    assert "the data of rank 1 are damaged" in result.stderr
    assert time.monotonic() - began < 30


def test_alone_a_world_is_one_process_and_sums_are_copies():
    with join_world("cpu") as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        ones = torch.ones(2)
        assert torch.equal(world.sum(ones), ones)
        assert world.sum(ones) is not ones
        world.barrier()


def test_what_fails_together_fails_with_its_own_error():
    def refuse() -> None:
        raise ValueError("the sock is missing")

    with pytest.raises(ValueError, match="sock"):
        ALONE.together(refuse)
    assert ALONE.together(lambda: 3) == 3


def parameters(*gradients: torch.Tensor) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = gradient.clone()
    return made


def test_clipping_is_torchs_in_every_group_by_itself():
    torch.manual_seed(0)
    gradients = {"large": (torch.randn(3, 4), torch.randn(5)), "small": (1e-3 * torch.randn(2, 2),)}
    ours = {name: parameters(*group) for name, group in gradients.items()}
    norms = clip_gradients(ours, 1.0)
    for name, group in gradients.items():
        theirs = parameters(*group)
        assert norms[name] == pytest.approx(float(nn.utils.clip_grad_norm_(theirs, 1.0)), rel=1e-6)
        for mine, torchs in zip(ours[name], theirs, strict=True):
            torch.testing.assert_close(mine.grad, torchs.grad)


def test_a_gradient_of_zeros_is_none_and_one_that_is_not_finite_is_told():
    zero, some = parameters(torch.zeros(2), torch.ones(2))
    without = nn.Parameter(torch.zeros(2))
    assert clip_gradients({"a": [zero, some, without], "b": []}, 10.0) == {"a": pytest.approx(2**0.5), "b": 0.0}
    assert zero.grad is None
    assert without.grad is None
    assert torch.equal(some.grad, torch.ones(2))
    (broken,) = parameters(torch.tensor([1.0, float("nan")]))
    assert not torch.isfinite(torch.tensor(clip_gradients({"a": [broken]}, 1.0)["a"]))
