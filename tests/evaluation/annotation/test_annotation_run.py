"""A whole run against an endpoint: what is asked, noted and stored, what happens again, and what does not."""

import json
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from fake_endpoint import FakeServer, completion, look, pictures_of, record_dataset, words_of

from molmoact2.data import DatasetSchema, DatasetWriter, Episode, LeRobotDataset
from molmoact2.data.annotated_tasks import ALL_FROZEN, ANNOTATIONS_PATH, read_annotations, read_task_episodes
from molmoact2.evaluation.annotation.asking import MOST_FAILURES_IN_A_ROW, Asking, Manner, has_failed
from molmoact2.evaluation.annotation.estimate import estimate
from molmoact2.evaluation.annotation.place import PROTOCOL, folder_beside
from molmoact2.evaluation.annotation.run import run_annotation, say_failures
from molmoact2.evaluation.ledger import EPISODES_FILE, open_ledger, read_records

EXPECTED = {
    0: "Push the red block to the left",
    1: "Push the green block to the left",
    2: "Push the blue block to the left",
    3: ALL_FROZEN,
    4: "Push the purple block to the left",
}


def run(dataset, server, *, manner=None, episodes=None, num_workers=2, **options):
    asking = Asking(annotator=server.endpoint(**options), manner=manner or Manner())
    episodes = range(len(dataset.episodes)) if episodes is None else episodes
    return run_annotation(dataset, asking, folder_beside(dataset), episodes=episodes, num_workers=num_workers)


def test_every_episode_gets_its_own_instruction(dataset, server):
    before = {path: path.read_bytes() for path in dataset.root.rglob("*") if path.is_file()}
    records = run(dataset, server)
    assert read_annotations(dataset.root) == EXPECTED
    assert {task: found.tolist() for task, found in read_task_episodes(dataset.root).items()} == {
        0: [0, 2, 4],
        1: [1, 3],
    }
    assert [record["episode_index"] for record in records] == [0, 1, 2, 3, 4]
    assert len(server.requests) == 4
    assert {path: path.read_bytes() for path in before} == before
    assert LeRobotDataset(dataset.root).episode(0).task == "move the block"


def test_what_is_asked(dataset, server):
    run(dataset, server, episodes=[1], request={"seed": 5, "max_tokens": None})
    (request,) = server.requests
    assert {name: value for name, value in request.items() if name != "messages"} == {
        "model": "toy",
        "temperature": 0.1,
        "seed": 5,
    }
    pictures, words = pictures_of(request), words_of(request)
    assert len(pictures) == 12, "the wrist camera is frozen"
    assert all(picture.shape == (32, 48, 3) for picture in pictures)
    marks = [np.flatnonzero(picture[14].min(axis=1) > 200).mean() for picture in pictures]
    assert np.all(np.diff(marks) > 0), "the pictures are in their order"
    assert "do the task" in words
    assert "'front'" in words
    assert "'wrist'" not in words
    record = read_records(folder_beside(dataset) / EPISODES_FILE)[0]
    assert f"About {record['num_words']} words" in words
    assert record["frozen"] == ["wrist"]
    assert record["attempts"] == [{"answer": EXPECTED[1], "complaint": "", "input_tokens": 100, "output_tokens": 10}]


def test_all_cameras_that_move_are_shown(tmp_path, server):
    run(record_dataset(tmp_path / "both", "w"), server)
    assert len(pictures_of(server.requests[0])) == 24


def test_what_is_known_is_not_asked_again(dataset, server):
    run(dataset, server, episodes=[0, 1])
    run(dataset, server)
    assert len(server.requests) == 4
    run(dataset, server)
    assert len(server.requests) == 4
    assert read_annotations(dataset.root) == EXPECTED


@pytest.mark.parametrize(
    "changes",
    [
        {"manner": Manner(seed=1)},
        {"manner": Manner(exponent=0.5)},
        {"manner": Manner(image_side=40)},
        {"request": {"seed": 3}},
    ],
)
def test_another_question_is_asked_anew(dataset, server, changes):
    run(dataset, server, episodes=[0])
    run(dataset, server, episodes=[0], **changes)
    assert len(server.requests) == 2
    run(dataset, server, episodes=[0], manner=Manner(num_attempts=7))
    assert len(server.requests) == 2, "how often may be asked changes no answer"


def test_an_unusable_answer_is_asked_for_again(dataset, server):
    server.script = [
        completion("The robot pushes a block."),
        completion("Pick it up.<|im_end|>"),
        completion('"Push it away."'),
    ]
    (record,) = run(dataset, server, episodes=[0])
    assert record["annotation"] == "Push it away."
    assert [attempt["complaint"] for attempt in record["attempts"]] == [
        "it is not an order that begins with its verb",
        "it has special tokens or tags",
        "",
    ]
    asked = [words_of(request) for request in server.requests]
    assert "not usable" not in asked[0]
    assert "not usable: it is not an order that begins with its verb." in asked[1]
    assert "im_end" not in asked[2]


def test_a_failed_episode_is_kept_aside(dataset, server):
    def refuse_green(request):
        reply = look(request)
        return completion("I'm sorry, I cannot help.") if b"green" in reply[2] else reply

    server.otherwise = refuse_green
    records = run(dataset, server)
    assert read_annotations(dataset.root) == {index: text for index, text in EXPECTED.items() if index != 1}
    assert [has_failed(record) for record in records] == [False, True, False, False, False]
    said = say_failures(records, folder_beside(dataset))
    assert "for 1 episodes" in said
    assert "episode 1: it is not an order" in said
    assert len(records[1]["attempts"]) == 3
    server.otherwise, num_requests = look, len(server.requests)
    assert say_failures(run(dataset, server), folder_beside(dataset)) == ""
    assert len(server.requests) == num_requests + 1, "only the failed one is asked again"
    assert read_annotations(dataset.root) == EXPECTED


def test_no_answer_at_all_is_an_error(dataset, server):
    server.otherwise = completion("")
    with pytest.raises(ValueError, match=r"None of 2 episodes has a usable answer.*holds no answer.*episodes.jsonl"):
        run(dataset, server, episodes=[0, 1])
    assert not (dataset.root / ANNOTATIONS_PATH).exists()


def test_a_model_that_only_fails_is_stopped(tmp_path, server):
    server.otherwise = completion("Yes.")
    dataset = record_dataset(tmp_path / "many", "m" * 16)
    with pytest.raises(ValueError, match=rf"{MOST_FAILURES_IN_A_ROW} episodes in a row .*3 to 30.*goes on"):
        run(dataset, server, manner=Manner(num_attempts=1), num_workers=1)
    assert MOST_FAILURES_IN_A_ROW <= len(server.requests) <= MOST_FAILURES_IN_A_ROW + 2


def test_a_broken_endpoint_ends_the_run_and_keeps_what_was_answered(dataset, server):
    server.script = [look, look, (401, {}, b"who are you?")]
    with pytest.raises(ValueError, match=r"HTTP 401 who are you\?.*--api-key-file"):
        run(dataset, server, num_workers=1)
    assert len(read_records(folder_beside(dataset) / EPISODES_FILE)) == 2
    assert not (dataset.root / ANNOTATIONS_PATH).exists()
    run(dataset, server)
    assert len(server.requests) == 5
    assert read_annotations(dataset.root) == EXPECTED


def test_a_damaged_dataset_ends_the_run(dataset, server):
    next(iter(sorted(dataset.root.rglob("*.mp4")))).write_bytes(b"no video")
    with pytest.raises(ValueError, match="mp4"):
        run(LeRobotDataset(dataset.root), server)


def test_requests_run_side_by_side_but_not_more_than_allowed(tmp_path):
    meet = threading.Barrier(3, timeout=20)

    def wait_for_the_others(request):
        meet.wait()
        return look(request)

    with FakeServer(otherwise=wait_for_the_others).running() as server:
        dataset = record_dataset(tmp_path / "six", "mmmmmm")
        run(dataset, server, num_workers=3)
    assert server.most_open == 3
    assert len(read_annotations(dataset.root)) == 6


def test_annotations_of_others_are_not_overwritten(dataset, server, tmp_path):
    run(dataset, server)
    elsewhere = tmp_path / "elsewhere"
    asking = Asking(annotator=server.endpoint(), manner=Manner())
    with pytest.raises(ValueError, match=r"was not written from .*elsewhere.*--output"):
        run_annotation(dataset, asking, elsewhere, episodes=[0], num_workers=1)
    assert not elsewhere.exists()


def test_a_trial_leaves_the_others_alone(dataset, server):
    run(dataset, server)
    server.otherwise = completion("Slide the block over")
    run(dataset, server, manner=Manner(seed=9), episodes=[0, 1])
    assert read_annotations(dataset.root) == EXPECTED | {0: "Slide the block over", 1: "Slide the block over"}


def test_a_dataset_of_still_pictures_needs_no_model(tmp_path, server):
    dataset = record_dataset(tmp_path / "still", "ss")
    run(dataset, server)
    run(dataset, server)
    assert not server.requests
    assert read_annotations(dataset.root) == {0: ALL_FROZEN, 1: ALL_FROZEN}


def test_a_dataset_without_cameras_is_refused(tmp_path, server):
    column = np.zeros((3, 1), np.float32)
    schema = DatasetSchema(fps=10, robot_type="toy", state_names=("a",), action_names=("a",), image_sizes={})
    with DatasetWriter(tmp_path / "blind", schema) as writer:
        writer.add_episode(Episode(images={}, state=column, action=column, task="wave"))
    with pytest.raises(ValueError, match="no cameras, so there is nothing to look at"):
        run(LeRobotDataset(tmp_path / "blind"), server)
    assert not (tmp_path / "blind.annotation").exists()


def test_two_runs_at_once_are_refused(dataset, server):
    with open_ledger(folder_beside(dataset), PROTOCOL), pytest.raises(ValueError, match="Another process"):
        run(dataset, server)


def test_an_estimate_knows_what_is_done(dataset, server):
    asking = Asking(annotator=server.endpoint(), manner=Manner())
    expected = estimate(dataset, asking, folder_beside(dataset), range(5))
    assert (expected.num_requests, expected.num_pictures, expected.num_answered) == (5, 120, 0)
    assert expected.num_input_tokens == 120 * 2 + 5 * 330  # 32 x 48 pixels are two tokens
    assert not folder_beside(dataset).exists()
    run(dataset, server, episodes=[0, 1])
    assert estimate(dataset, asking, folder_beside(dataset), range(5)).num_requests == 3
    other = Asking(annotator=server.endpoint(), manner=Manner(seed=1))
    assert estimate(dataset, other, folder_beside(dataset), range(5)).num_requests == 5


RUN = """
import signal
import sys
from molmoact2.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in what runs behind
main(["data", "annotate", sys.argv[1], "--endpoint", sys.argv[2], "--model", "toy", "--workers", "1", "--review", "0"])
"""


def test_a_killed_run_goes_on(tmp_path):
    """SIGKILL while a request is in flight: that request is asked again, and no other."""
    dataset = record_dataset(tmp_path / "toys", "mmmmmmmm")
    held = threading.Event()

    def hold(_request):
        held.set()
        time.sleep(60)
        return completion("Never heard of")

    folder = folder_beside(dataset)
    with FakeServer([look, look, look, hold, look, hold]).running() as server:
        command = [sys.executable, "-c", RUN, str(dataset.root), server.url]
        for num_answered in (3, 4):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                assert held.wait(60)
                held.clear()
                process.send_signal(signal.SIGKILL)
            assert len(read_records(folder / EPISODES_FILE)) == num_answered
            assert not (dataset.root / ANNOTATIONS_PATH).exists()
        with (folder / EPISODES_FILE).open("a") as file:
            file.write('{"key": "half a li')
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    assert len(server.requests) == 8 + 2
    assert len(read_annotations(dataset.root)) == 8
    lines = (folder / EPISODES_FILE).read_text().splitlines()
    assert sorted(json.loads(line)["episode_index"] for line in lines) == list(range(8))


def test_ctrl_c_does_not_wait_for_the_answer(tmp_path):
    dataset = record_dataset(tmp_path / "toys", "mm")
    held, release = threading.Event(), threading.Event()

    def hold(_request):
        held.set()
        release.wait(60)
        return completion("Never heard of")

    with FakeServer(otherwise=hold).running() as server:
        command = [sys.executable, "-c", RUN, str(dataset.root), server.url]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            assert held.wait(60)
            process.send_signal(signal.SIGINT)
            assert process.wait(90) == 130
        release.set()
