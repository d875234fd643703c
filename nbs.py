"""Every command under one name: `nbs train`, `nbs predict`, ...; `nbs --help` lists them.

A command is the `main` of a module, imported when it is asked for: the list itself needs no PyTorch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import fields, make_dataclass
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Annotated, Any

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Masks of your images": {
        "train": ("agents.run", "learn from images of which about five have masks; figures and a detector"),
        "predict": ("nbs_env.detect.predict", "masks of new images, and which of them are bad"),
        "export": ("nbs_env.detect.export", "the detector as one ONNX file"),
        "label": ("nbs_env.desk.label", "draw masks, in a browser"),
        "report": ("nbs_env.desk.report", "what a run is worth, as one page"),
    },
    "Rivals, trained and scored on the same split": {
        "unet": ("baselines.unet", "a U-Net on the labelled images"),
        "forest": ("baselines.forest", "a random forest on the labelled pixels"),
        "reconstruction": ("baselines.reconstruction", "an autoencoder on normal images"),
    },
    "Whole images: normal or not": {
        "alcn": ("baselines.alcn", "a denoising autoencoder with learned noise"),
        "d-anogan": ("baselines.d_anogan", "a generator for each kind of normal image"),
        "classes": ("baselines.classes", "ten rivals of these two, from PCA to GANs"),
    },
    "Comparisons": {
        "policies": ("benchmarks.policies", "agents over data sets and seeds, with intervals"),
        "labels": ("benchmarks.labels", "which image is best labelled next"),
        "tables": ("benchmarks.tables", "batch sampling beside its rivals"),
        "ablations": ("benchmarks.ablations", "what each part of batch sampling is worth"),
        "speed": ("benchmarks.speed", "what everything costs on this machine"),
    },
}
"""Module or package, and one line, of each command."""
SHELLS = ("bash", "zsh", "tcsh")


def commands() -> dict[str, str]:
    """The module whose `main` is a command, by the command's name; only what is installed."""
    found = {name: _find(module) for group in GROUPS.values() for name, (module, _) in group.items()}
    return {name: module for name, module in found.items() if module}


def _find(module: str) -> str | None:
    """`module`, or what is run of it if it is a package; no package is imported, which may need PyTorch."""
    first, *rest = module.split(".")
    spec = find_spec(first)
    for name in rest:
        places = spec and spec.submodule_search_locations
        spec = PathFinder.find_spec(name, list(places)) if places else None
    if spec is None:
        return None
    return module if spec.submodule_search_locations is None else f"{module}.__main__"


def overview() -> str:
    """What `nbs --help` prints."""
    lines = ["usage: nbs COMMAND [options]", "       nbs COMMAND --help     the command's options"]
    known = commands()
    for title, group in GROUPS.items():
        rows = [f"  {name:16}{line}" for name, (_, line) in group.items() if name in known]
        lines += ["", title, *rows]
    lines += ["", f"nbs completion {'|'.join(SHELLS)} prints what completes all this in a shell."]
    lines += ["`nbs train` without options runs on built-in images."]
    return "\n".join(lines)


def settings(module: str) -> list[type]:
    """The dataclasses that a command's options are made from."""
    if module == "agents.run":
        from agents.reinforce import ReinforceOptions
        from agents.run import AgentArgs
        from nbs_env.config import Config
        from nbs_env.desk.run import RunArgs
        from nbs_env.detect.config import DetectorConfig

        return [RunArgs, AgentArgs, DetectorConfig, Config, ReinforceOptions]
    return [
        value
        for name, value in vars(import_module(module)).items()
        if name.endswith("Args") and isinstance(value, type) and value.__module__ == module
    ]


def completion(shell: str) -> None:
    """Print a script that completes commands and their options in `shell`."""
    import tyro

    from nbs_env.common.options import without

    flat = tyro.conf.arg(name="", prefix_name=False)
    parsers: dict[str, Any] = {}
    for name, module in commands().items():
        parts: list[tuple[str, Any]] = []
        taken: set[str] = set()
        for part in settings(module):
            parts.append((part.__name__, Annotated[without(part, taken), flat]))
            taken |= {field.name for field in fields(part)}
        parsers[name] = make_dataclass(name, parts)
    tyro.extras.subcommand_cli_from_dict(parsers, prog="nbs", args=["--tyro-print-completion", shell])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that is named first, with the options behind it."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    known = commands()
    if name in ("-h", "--help"):
        print(overview())
    elif name == "completion" and words and words[0] in SHELLS:
        completion(words[0])
    elif name in known:
        sys.path.append(os.getcwd())  # where agents of the user's own lie, as for `python -m`
        sys.argv[0] = f"nbs {name}"  # for the usage line
        import_module(known[name]).main(words)
    else:
        wrong, choices = (name, known) if name != "completion" else (" ".join([name, *words[:1]]), SHELLS)
        print(f"error: there is no command {wrong!r}; choose {', '.join(choices)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
