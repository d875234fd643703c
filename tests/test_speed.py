"""The benchmark of speed: cases take turns, and a row says what the times come to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import speed


def test_rows_are_medians_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([99.0, 99.0, 4.0, 1.0, 2.0, 8.0, 2.0, 6.0])  # the first round warms up; slow, fast, slow ...
    monkeypatch.setattr(speed, "timed", lambda task, device: next(clock))
    slow, fast = speed.measure([speed.Case("slow", int), speed.Case("fast", int, "slow")], 3, "cpu")
    assert (slow["seconds"], fast["seconds"]) == (2.0, 6.0)
    assert fast["times_faster"] == pytest.approx(2 / 6)
    assert slow["times_faster"] is None
    clock = iter(range(11))
    (row,) = speed.measure([speed.Case("quick", int, share=5)], 2, "cpu")
    assert row["seconds"] == 5.5  # of ten
    assert not list(clock)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [speed.Case("nothing", int), speed.Case("again", int, "nothing")]
    monkeypatch.setitem(speed.GROUPS, "tiny", lambda device: iter(cases))
    speed.main(["--groups", "tiny,step", "--rounds", "1", "--device", "cpu", "--out", str(tmp_path)])
    assert (tmp_path / "speed.md").read_text() in capsys.readouterr().out
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["reference"] for row in rows] == ["", "nothing", ""]
    assert all(row["seconds"] > 0 for row in rows)


def test_unknown_group_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        speed.main(["--groups", "steps"])
    assert end.value.code == 2
    assert "groups has 'steps'" in capsys.readouterr().err
