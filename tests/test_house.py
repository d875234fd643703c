"""The house: what may import what. CONTRIBUTING has the same drawing."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

FLOORS = (
    {"nbs_env.common"},
    {"nbs_env.data"},
    {"nbs_env.features"},
    {"nbs_env"},  # the game
    {"nbs_env.detect"},
    {"nbs_env.desk"},
    {"agents", "baselines"},  # beside each other, not knowing each other
    {"benchmarks"},
    {"train", "nbs"},
)
ROOT = Path(__file__).parents[1]


def imports() -> dict[str, set[str]]:
    """The modules that each module imports, wherever in it."""
    files = [
        f for top in ("nbs_env", "agents", "baselines", "benchmarks") for f in (ROOT / top).rglob("*.py")
    ]
    files += [ROOT / "train.py", ROOT / "nbs.py"]
    names = {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}
    found: dict[str, set[str]] = {}
    for name, file in names.items():
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        wanted = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in (node for node in nodes if isinstance(node, ast.ImportFrom)):
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            wanted |= (parts & names.keys()) or {str(node.module)}
        found[name] = wanted & names.keys() - {name}
    return found


def room(module: str) -> tuple[int, str]:
    """Its floor, and the part of the house that it lies in."""
    return max(
        (len(part), floor, part)
        for floor, parts in enumerate(FLOORS)
        for part in parts
        if module == part or module.startswith(f"{part}.")
    )[1:]


def test_imports_point_down_and_run_in_no_circle() -> None:
    found = imports()
    for module, wanted in found.items():
        floor, part = room(module)
        for other, (below, neighbour) in ((other, room(other)) for other in wanted):
            assert below < floor or neighbour == part, f"{module} imports {other}"
    TopologicalSorter(found).prepare()  # a circle is a CycleError


def plan() -> str:
    """Rooms (files), floors (the longest way down over imports) and circles, in words."""
    rooms = {n: wanted for n, wanted in imports().items() if not (ROOT / n.replace(".", "/")).is_dir()}
    names = sorted(rooms)
    edges = np.array([[other in rooms[name] for other in names] for name in names])
    _, knot = connected_components(csr_array(edges), connection="strong")
    ways = {(a, b) for a, b in zip(*(knot[side] for side in np.nonzero(edges)), strict=True) if a != b}
    floors = dict.fromkeys(knot.tolist(), 1)
    for _ in floors:
        for above, below in ways:
            floors[above] = max(floors[above], floors[below] + 1)
    circles = [
        [name for name, k in zip(names, knot, strict=True) if k == c]
        for c in np.flatnonzero(np.bincount(knot) > 1)
    ]
    return f"{len(names)} rooms, {max(floors.values())} floors, circles: {circles or 'none'}"


if __name__ == "__main__":  # python tests/test_house.py [CHECKOUT]
    ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT).resolve()
    print(plan())
