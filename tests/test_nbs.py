"""`nbs`: one name for every command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nbs

ROOT = Path(nbs.__file__).parent


def test_help_names_every_command_and_imports_no_pytorch() -> None:
    code = "import sys, nbs; sys.argv = ['nbs']; nbs.main(); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, imported = said.stdout.splitlines()
    assert imported == "False"
    listed = {line.split()[0] for line in lines if line[:2] == "  " != line[1:3]}
    assert listed == set(nbs.commands())
    assert {"train", "predict", "export", "tables", "policies", "alcn"} <= listed


def test_predicting_waits_for_no_statistics() -> None:
    """A third of the wait for the command was their import; only scores need them."""
    slow = {"sklearn", "scipy.stats", "pandas"}
    code = f"import sys, nbs_env.detect.predict; sys.exit(bool({slow} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_file_that_is_listed_is_a_command() -> None:
    """A module that was moved would silently leave the list."""
    for name in (name for group in nbs.GROUPS.values() for name in group):
        file = ROOT / (nbs.commands()[name].replace(".", "/") + ".py")
        assert "def main(" in file.read_text(encoding="utf-8")
        assert nbs.settings(nbs.commands()[name]), name


def test_options_go_to_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "argv", ["nbs"])
    with pytest.raises(SystemExit) as end:
        nbs.main(["export", "--run", str(tmp_path / "none"), "--out", str(tmp_path / "a.onnx")])
    assert end.value.code == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        nbs.main(["predict", "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: nbs predict ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "error: there is no command 'trian'; choose train, "),
        (["completion", "fish"], "error: there is no command 'completion fish'; choose bash, zsh, tcsh"),
    ],
)
def test_no_such_command(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        nbs.main(words)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(message)


def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        nbs.main(["completion", "bash"])
    script = tmp_path / "nbs.bash"
    script.write_text(capsys.readouterr().out)

    def complete(*line: str) -> set[str]:
        words = " ".join(line)
        code = (
            f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(line) - 1}; _tyro_nbs; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        said = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return {word.strip() for word in said.stdout.split()}

    assert complete("nbs", "tr") == {"train"}
    assert complete("nbs", "train", "--data-r") == {"--data-root"}
    assert complete("nbs", "alcn", "--model.noise-w") == {"--model.noise-width"}
