"""What all commands share: claims of folders, names of files, streams, notes and errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Main, python
from PIL import Image
from tqdm import tqdm

from nbs_env.common import runs
from nbs_env.common.errors import RunError
from nbs_env.common.runs import check_data, check_names, check_settings, claim, command, digests
from nbs_env.data import DataError, DataWarning

Capture = pytest.CaptureFixture[str]


# Claims


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    for resumed in (False, True):
        with claim(tmp_path / "run"):
            with pytest.raises(RunError, match="run already holds a run, and another process works on it"):
                claim(tmp_path / "run", resumed).__enter__()
            assert (tmp_path / "run").is_dir()
            assert runs.held(tmp_path / "run")
        assert not runs.held(tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nothing came of it


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    code = f"""
from nbs_env.common.runs import *
with claim(Path({str(tmp_path)!r})):
    print('held', flush=True), input()
"""
    process = python(code)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(RunError, match="another process works on it"):
        claim(tmp_path).__enter__()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with claim(tmp_path):
        pass
    assert tmp_path.is_dir()  # it was there before
    assert not any(tmp_path.iterdir())


def test_only_a_new_folder_is_begun_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.json.part").touch()
    (tmp_path / "overlays.png").touch()
    with claim(tmp_path, leftovers=("overlays.png",)), claim(tmp_path / "a"):
        pass
    monkeypatch.setattr(runs, "fcntl", None)  # as where there are no locks
    with pytest.raises(RunError, match="already holds a run; choose another --run-dir, or --resume it"):
        claim(tmp_path).__enter__()
    with claim(tmp_path, resumed=True):
        pass


# Settings and data


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    before = {"run": {"seed": 1, "data_root": "/a"}, "model": {"width": 2}}
    check_settings(before, {"run": {"seed": 1, "data_root": "/b"}}, tmp_path)
    for now, line in (
        ({"model": {"width": 3}}, "was made with width = 2, not 3; go on with the same settings"),
        ({"run": {"mask_values": [85]}}, r"was made with mask_values = None, not \[85\]"),
    ):
        with pytest.raises(RunError, match=line):
            check_settings(before, now, tmp_path)


def test_digests_see_every_byte_and_name_what_differs(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(256, size=(3, 4, 4, 3), dtype=np.uint8)
    before = digests(names=["a", "b"], images=images)
    changed = images.copy()
    changed[2, 3, 3, 2] ^= 1
    check_data(before, digests(names=["a", "b"], images=images.copy()), "mine", tmp_path)
    with pytest.raises(RunError, match=r"mine no longer holds what .* was begun with: other images; restore"):
        check_data(before, digests(names=["a", "b"], images=changed), "mine", tmp_path)


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("n" * 250 + ".png", r"nnn.png: a name of 259 bytes with .part behind it; at most 255"),
        ("ä" * 124 + ".png", r"a name of 257 bytes"),
        ("caf\udce9.png", r"caf\\udce9.png: its name is not UTF-8, or not of this locale; rename the image"),
    ],
    ids=["long", "longer", "undecodable"],  # such a name is no name of a test
)
def test_names_that_cannot_be_written(name: str, message: str, tmp_path: Path) -> None:
    check_names([tmp_path / ("n" * 246 + ".png"), tmp_path / "ä.png"])
    with pytest.raises(RunError, match=message):
        check_names([tmp_path / "a.png", tmp_path / name])


def test_names_are_checked_before_training(
    main: Main, error: Callable[..., str], mine: Path, tmp_path: Path
) -> None:
    (mine / "images" / "4.png").rename(mine / "images" / ("n" * 248 + ".png"))
    assert "nnn.png: a name of 257 bytes" in error(data_root=mine, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Streams


@pytest.mark.parametrize("leave", [True, False])
def test_an_error_has_a_line_of_its_own(leave: bool, capsys: Capture) -> None:
    @command()
    def main() -> None:
        for number in tqdm(range(3), leave=leave):
            if number:
                warnings.warn("a mask\nis odd", DataWarning, stacklevel=1)
                raise DataError("1.png: damaged\nor empty")

    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == "error: 1.png: damaged or empty"
    lines = [line for line in err.split("\n") if line.startswith(("note:", "error:"))]
    assert lines == ["note: a mask is odd", "error: 1.png: damaged or empty"]


def test_notes_are_said_once_and_other_warnings_stay(capsys: Capture) -> None:
    with pytest.warns(UserWarning, match="not ours") as others, command():  # noqa: PT031
        for _ in range(2):
            warnings.warn("one is left out", DataWarning, stacklevel=1)
        warnings.warn("not ours", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "note: one is left out\n"
    assert len(others) == 1


def test_a_locale_without_letters_and_a_backend_that_is_not_there(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from nbs_env.common.checkpoint import save_figure, save_text
from nbs_env.common.pictures import new_figure
from nbs_env.common.runs import command
with command():
    print("gr\\u00f6\\u00dfe \\udce9", flush=True)
    save_text("gr\\u00f6\\u00dfe\\n", Path({str(tmp_path)!r}) / "a.csv")
    figure = new_figure(2, 1)
    figure.subplots().plot([1, 2])
    save_figure(figure, Path({str(tmp_path)!r}) / "a.png", dpi=50)
    assert os.environ["MPLBACKEND"] == "module://nowhere.backend"
    raise OSError("\\u00e4.png is not there")
"""
    places = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    process = python(code, MPLBACKEND="module://nowhere.backend", **places)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, "error: \\xe4.png is not there\n")
    assert out == "gr\\xf6\\xdfe \\udce9\n"
    assert (tmp_path / "a.csv").read_bytes() == "größe\n".encode()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (100, 50)


@pytest.mark.skipif(os.name == "nt", reason="closes file descriptors by the shell")
def test_streams_that_are_closed(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from tqdm import tqdm
from nbs_env.common.runs import RunError, command
with command():
    for _ in tqdm(range(2)):
        print("said")
    Path({str(tmp_path / "done")!r}).write_text("all of it")
    raise RunError("nobody hears it")
"""
    words = ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(words).returncode == 2
    assert (tmp_path / "done").read_text() == "all of it"
