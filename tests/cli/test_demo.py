"""`molmoact2 demo`, in small: the scripted expert in place of the bundled policy."""

from pathlib import Path

import pytest

from molmoact2.cli.main import main


def test_demo_shows_every_task_and_ends_with_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["demo", "--policy", "expert", "--episodes", "1", "--workers", "1", "--output", str(tmp_path / "demo")])
    shown = capsys.readouterr().out
    assert all(task in shown for task in ("pick", "plate", "push"))
    assert f"Report: {(tmp_path / 'demo' / 'report.html').as_uri()}" in shown
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000, "the films are in the report"
