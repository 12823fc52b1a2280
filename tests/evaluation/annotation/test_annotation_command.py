"""`molmoact2 data annotate` from end to end."""

import pytest
from fake_endpoint import completion, record_dataset

from molmoact2.cli.main import main
from molmoact2.data.annotated_tasks import ALL_FROZEN, read_annotations

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


def test_no_dataset(tmp_path, capsys):
    with pytest.raises(SystemExit):
        annotate(tmp_path / "none", "--endpoint", "http://host/v1", "--model", "m")
    assert "none" in capsys.readouterr().err
