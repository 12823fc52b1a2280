"""Benchmarks: paired seeds, resuming, and the same records however they were computed."""

import json
from dataclasses import replace

import pytest
from worlds import LineWorld, open_walker

from molmoact2.evaluation.benchmark import FIRST_SEED, Benchmark, run_benchmark
from molmoact2.evaluation.film import read_footage
from molmoact2.evaluation.ledger import EPISODES_FILE, open_ledger, read_records

BENCHMARK = Benchmark(
    open_environment=LineWorld, open_policy=open_walker, tasks=("left", "right"), num_episodes=6, num_films=0
)
PROTOCOL = {"policy": "walker", "environment": "line"}


def run(benchmark, output, *, stop_after=None, num_workers=1, protocol=PROTOCOL):
    records = run_benchmark(benchmark, output, protocol, num_workers=num_workers)
    for number, found in enumerate(records):
        if number == stop_after:
            records.close()
            return found
    return found


def without_clock(records):
    clocks = ("plan_seconds", "each_plan_seconds", "machine")
    return [{key: value for key, value in record.items() if key not in clocks} for record in records]


def test_every_task_meets_the_same_seeds(tmp_path):
    records = run(BENCHMARK, tmp_path)
    assert [(r["task"], r["seed"]) for r in records] == [
        (task, FIRST_SEED + index) for index in range(6) for task in ("left", "right")
    ]
    wrong = [r["seed"] for r in records if r["failure"] == "wrong object"]
    assert wrong == [seed for seed in range(FIRST_SEED, FIRST_SEED + 6) if seed % 5 == 0 for _ in range(2)]
    assert all(r["success"] == (r["failure"] is None) for r in records)


def test_a_record_says_what_was_measured(tmp_path):
    record = run(replace(BENCHMARK, num_episodes=1), tmp_path)[0]
    assert record["instruction"] == "go left"
    assert record["plan_seconds"]["p50"] <= record["plan_seconds"]["p95"] <= record["plan_seconds"]["p100"]
    assert record["stage_seconds"] == {"encode": 0.002, "plan": 0.004}
    assert record["plans"] == -(-record["steps"] // 3)
    assert "numpy" in record["machine"]["packages"]


def test_stopped_and_resumed_is_never_stopped(tmp_path):
    whole = run(BENCHMARK, tmp_path / "whole")
    run(BENCHMARK, tmp_path / "parts", stop_after=5)
    assert len(read_records(tmp_path / "parts" / EPISODES_FILE)) == 5
    assert without_clock(run(BENCHMARK, tmp_path / "parts")) == without_clock(whole)


def test_more_episodes_extend_a_finished_run(tmp_path):
    run(replace(BENCHMARK, num_episodes=2), tmp_path)
    assert without_clock(run(BENCHMARK, tmp_path)) == without_clock(run(BENCHMARK, tmp_path / "whole"))


def test_a_half_written_line_is_run_again(tmp_path):
    run(BENCHMARK, tmp_path, stop_after=4)
    ledger = tmp_path / EPISODES_FILE
    ledger.write_bytes(ledger.read_bytes()[:-20])
    assert len(read_records(ledger)) == 3
    assert without_clock(run(BENCHMARK, tmp_path)) == without_clock(run(BENCHMARK, tmp_path / "whole"))
    assert all(json.loads(line) for line in ledger.read_text().splitlines())


def test_another_protocol_is_refused(tmp_path):
    run(replace(BENCHMARK, num_episodes=1), tmp_path)
    with pytest.raises(ValueError, match=r"another protocol: policy was 'walker', is 'runner'.*another output"):
        run(BENCHMARK, tmp_path, protocol=PROTOCOL | {"policy": "runner"})


def test_a_damaged_line_is_named(tmp_path):
    run(BENCHMARK, tmp_path, stop_after=2)
    ledger = tmp_path / EPISODES_FILE
    ledger.write_text("garbage\n" + ledger.read_text())
    with pytest.raises(ValueError, match="Line 1 of"):
        run(BENCHMARK, tmp_path)


def test_two_runs_cannot_share_an_output(tmp_path):
    with open_ledger(tmp_path, PROTOCOL), pytest.raises(ValueError, match="Another process"):
        run(BENCHMARK, tmp_path)


def test_workers_change_nothing_but_the_time(tmp_path):
    benchmark = replace(BENCHMARK, num_episodes=3)
    alone = run(benchmark, tmp_path / "alone")
    assert without_clock(run(benchmark, tmp_path / "two", num_workers=2)) == without_clock(alone)


def refuse_to_open(_environment):
    raise ValueError("The checkpoint is broken.")


def test_a_mistake_in_a_worker_is_told_as_it_is(tmp_path):
    with pytest.raises(ValueError, match="The checkpoint is broken"):
        run(replace(BENCHMARK, open_policy=refuse_to_open), tmp_path, num_workers=2)


def test_the_first_episodes_are_filmed(tmp_path):
    records = run(replace(BENCHMARK, num_episodes=2, num_films=1), tmp_path)
    assert [r["film"] for r in records] == [f"left-{FIRST_SEED}", f"right-{FIRST_SEED}", None, None]
    footage = read_footage(tmp_path / "films" / records[1]["film"])
    num_plans, num_steps = records[1]["plans"], records[1]["steps"]
    assert footage.chunks.shape == (num_plans, 6, 6)
    assert footage.measured.shape == (num_steps + 1, 6)
    assert footage.executed.shape == (num_steps, 6)
    assert footage.steps.tolist() == list(range(0, num_steps, 3))
    assert footage.sheets.keys() == {"front", "wrist"}
    assert num_frames(footage.video) == num_steps + 1


def num_frames(video):
    import io

    import av

    with av.open(io.BytesIO(video)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize(("change", "message"), [({"num_episodes": 0}, "at least 1"), ({"tasks": ()}, "one task")])
def test_an_empty_benchmark_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(BENCHMARK, **change)
