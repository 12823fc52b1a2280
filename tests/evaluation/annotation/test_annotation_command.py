"""`molmoact2 data annotate` from end to end."""

import shutil
from pathlib import Path

import pytest
from fake_endpoint import completion, pictures_of, record_dataset

from molmoact2.cli.main import main
from molmoact2.data.annotated_tasks import ALL_FROZEN, read_annotations

REAL = Path(__file__).parents[4] / "shared" / "data" / "g1_bottle"
KEY = "sk-very-secret-123"


def annotate(*arguments):
    main(["data", "annotate", *map(str, arguments)])


def test_from_the_command_line(tmp_path, server, capsys):
    record_dataset(tmp_path / "toys", "mmsm")
    (tmp_path / "key").write_text(KEY + "\n")
    where = ("--endpoint", server.url, "--model", "toy", "--api-key-file", tmp_path / "key")
    annotate(tmp_path / "toys", *where, "--preview")
    assert "4 requests with 96 pictures" in capsys.readouterr().out
    assert not server.requests
    assert not (tmp_path / "toys.annotation").exists()
    annotate(tmp_path / "toys", *where, "--request", '{"seed": 1}', "--episodes", "2")
    assert len(read_annotations(tmp_path / "toys")) == 2
    annotate(tmp_path / "toys", *where, "--request", '{"seed": 1}')
    said = capsys.readouterr()
    assert "distinct" in said.out
    assert "review.html" in said.out
    assert len(server.requests) == 3
    assert all(request["seed"] == 1 for request in server.requests)
    assert read_annotations(tmp_path / "toys")[2] == ALL_FROZEN
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "key"]
    assert len(written) > 5
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert KEY not in said.out + said.err


def test_a_review_is_applied(tmp_path, server, capsys):
    record_dataset(tmp_path / "toys", "mm")
    annotate(tmp_path / "toys", "--endpoint", server.url, "--model", "toy", "--output", tmp_path / "elsewhere")
    (tmp_path / "decisions.json").write_text('{"decisions": []}')
    annotate(tmp_path / "toys", "--apply-review", tmp_path / "decisions.json", "--output", tmp_path / "elsewhere")
    assert "no decisions" in capsys.readouterr().out
    assert not (tmp_path / "toys.annotation").exists()


def test_failures_are_reported(tmp_path, server, capsys):
    record_dataset(tmp_path / "toys", "mm")
    server.script = [completion("No.")] * 2
    annotate(tmp_path / "toys", "--endpoint", server.url, "--model", "toy", "--workers", "1", "--attempts", "2")
    said = capsys.readouterr().out
    assert "No usable answer for 1 episodes" in said
    assert "episode 0: it has 1 words" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Give one of --endpoint"),
        (("--endpoint", "http://host/v1", "--checkpoint", "x"), "Give one of --endpoint"),
        (("--endpoint", "http://host/v1"), "needs --model"),
        (("--endpoint", "http://host/v1", "--model", "m", "--workers", "0"), "more than 0"),
        (("--endpoint", "host", "--model", "m"), "http or https address"),
        (("--endpoint", "http://host/v1", "--model", "m", "--request", "5"), "JSON object"),
        (("--endpoint", "http://host/v1", "--model", "m", "--api-key-file", "none"), "cannot be read"),
        (("--checkpoint", "/no/such/thing"), "neither a directory nor a hub id"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, capsys, arguments, complaint):
    record_dataset(tmp_path / "toys", "m")
    with pytest.raises(SystemExit) as stop:
        annotate(tmp_path / "toys", *arguments)
    assert stop.value.code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["toys"]


def test_episodes_without_video_are_left_out_and_told(tmp_path, server, capsys):
    dataset = record_dataset(tmp_path / "toys", "mm")
    videos = sorted(dataset.root.rglob("*.mp4"))
    videos[0].unlink()
    where = ("--endpoint", server.url, "--model", "toy")
    with pytest.raises(SystemExit):
        annotate(tmp_path / "toys", *where)
    said = capsys.readouterr()
    assert "video is missing: 2 episodes" in said.out
    assert "no episodes to annotate whose video is there" in " ".join(said.err.split())


@pytest.mark.skipif(not REAL.exists(), reason="the shared G1 recording is not beside the checkout")
def test_a_real_recording_of_version_2(tmp_path, server, capsys):
    root = Path(shutil.copytree(REAL, tmp_path / "g1"))
    annotate(root, "--endpoint", server.url, "--model", "toy", "--review", "2")
    said = capsys.readouterr().out
    assert "To ask: 4 requests with 48 pictures" in said
    assert "Left out, because their video is missing:" in said
    assert sorted(read_annotations(root)) == [1, 2, 29, 30]
    assert len(pictures_of(server.requests[0])) == 12
    assert pictures_of(server.requests[0])[0].shape == (336, 448, 3)


def test_no_dataset(tmp_path, capsys):
    with pytest.raises(SystemExit):
        annotate(tmp_path / "none", "--endpoint", "http://host/v1", "--model", "m")
    assert "none" in capsys.readouterr().err
