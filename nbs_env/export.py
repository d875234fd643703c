"""The segmenter of a run as one ONNX file: `python -m nbs_env.export --run RUN_DIR --out detector.onnx`.

Everything is inside the graph. Input `image`, uint8 (h, w, 3), RGB, of any size from 64x64 up. Outputs
`probability`, float32 (h, w), `mask`, bool (h, w), `score`, float32, the mean of the highest 0.1 % of the
probabilities, and `bad`, bool, whether the image is called bad. Needs the extra `export`.
"""

from __future__ import annotations

import copy
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from nbs_env import checkpoint
from nbs_env.detect.segmenter import Segmenter, probable
from nbs_env.detector import Detector
from nbs_env.runs import RunError, command

OUTPUTS = ("probability", "mask", "score", "bad")
OPSET = 18
"""The first one whose Resize can smooth while it shrinks, as Pillow does."""


@dataclass(frozen=True)
class ExportArgs:
    """What to export."""

    run: Path
    """Directory of a finished run with a segmenter."""
    out: Path
    """The file to write."""


def export(detector: Detector, file: Path) -> None:
    """Write the segmenter of `detector` as ONNX.

    Raises:
        RunError: the extra `export` is not installed, or there is no segmenter.
        WriteError: the file cannot be written.
    """
    try:
        import onnx
    except ImportError as error:
        raise RunError(
            "onnx is not installed; python -m pip install 'neural-batch-sampling[export]'"
        ) from error
    if "segmenter" not in detector.methods:
        raise RunError("this detector has no segmenter to export; train it with --segmenter-steps above 0")
    buffer = io.BytesIO()
    network = _Probable(copy.deepcopy(detector.segmenter).cpu().eval(), detector.segmenter_symmetries)
    side = detector.image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other exporter needs a package more, for the same graph
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, side, side),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["small"],
            output_names=["probabilities"],
        )
    model = onnx.load_from_string(buffer.getvalue())
    _surround(onnx, model.graph, side, detector.segmenter_threshold, detector.image_threshold)
    facts = {"image_size": side, "threshold": detector.segmenter_threshold, "white": 255}
    onnx.helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
    model.producer_name = "neural-batch-sampling"
    onnx.checker.check_model(model, full_check=True)
    checkpoint.replace_file(file, lambda part: part.write_bytes(model.SerializeToString()))


class _Probable(torch.nn.Module):
    """Images (1, 3, S, S) in [0, 1] to probabilities (1, S, S)."""

    def __init__(self, segmenter: Segmenter, symmetries: bool) -> None:
        super().__init__()
        self.segmenter, self.symmetries = segmenter, symmetries

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return probable(self.segmenter, images, torch.float32, self.symmetries)


def _surround(onnx: Any, graph: Any, side: int, threshold: float, image_threshold: float | None) -> None:
    """Put what `Detector.predict` does before and after the network around it."""
    helper, kinds = onnx.helper, onnx.TensorProto
    constants = {
        "sizes": np.array([1, 3]),
        "side": np.array([side]),
        "one": np.array([1]),
        "two": np.array([2]),
        "axes": np.array([0, 1]),
        "zero": np.array(0, np.float32),
        "white": np.array(255, np.float32),
        "threshold": np.array(threshold, np.float32),
        "half": np.array(0.5, np.float32),
        "flat": np.array([-1]),
        "highest": np.array([max(1, side * side // 1000)]),
        "ones": np.array([1, 1]),
        "first": np.array([0]),
    }
    if image_threshold is not None:
        constants["alarm"] = np.array(image_threshold, np.float32)
    graph.initializer.extend(onnx.numpy_helper.from_array(v, f"nbs_{name}") for name, v in constants.items())

    def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
        names = [f"nbs_{name}" if name in constants else name for name in inputs.split(",")]
        return helper.make_node(kind, names, outputs.split(","), **attributes)

    def resize(source: str, sizes: str, target: str, mode: str) -> Any:
        settings = {"antialias": 1, "cubic_coeff_a": -0.5, "exclude_outside": 1}
        return node("Resize", f"{source},,,{sizes}", target, mode=mode, **settings)

    before = [
        node("Transpose", "image", "channels_first", perm=[2, 0, 1]),
        node("Cast", "channels_first", "levels", to=kinds.FLOAT),
        node("Unsqueeze", "levels,first", "batch"),
        # Pillow shrinks rows, rounds, shrinks columns, rounds.
        node("Shape", "image", "shape"),
        node("Slice", "shape,first,one", "height"),
        node("Concat", "sizes,height,side", "sizes_between", axis=0),
        resize("batch", "sizes_between", "rows", "cubic"),
        node("Add", "rows,half", "rows_and_half"),
        node("Floor", "rows_and_half", "rows_rounded"),
        node("Clip", "rows_rounded,zero,white", "between"),
        node("Concat", "sizes,side,side", "sizes_small", axis=0),
        resize("between", "sizes_small", "columns", "cubic"),
        node("Add", "columns,half", "columns_and_half"),
        node("Floor", "columns_and_half", "columns_rounded"),
        node("Clip", "columns_rounded,zero,white", "clipped"),
        node("Div", "clipped,white", "small"),
    ]
    after = [
        node("Slice", "shape,first,two", "size"),
        node("Concat", "ones,size", "whole_sizes", axis=0),
        node("Unsqueeze", "probabilities,first", "planes"),
        resize("planes", "whole_sizes", "whole", "linear"),
        node("Squeeze", "whole,axes", "probability"),
        node("GreaterOrEqual", "planes,threshold", "inside"),
        node("Cast", "inside", "inside_levels", to=kinds.FLOAT),
        resize("inside_levels", "whole_sizes", "whole_mask", "linear"),
        node("GreaterOrEqual", "whole_mask,half", "mask_plane"),
        node("Squeeze", "mask_plane,axes", "mask"),
        node("Reshape", "probabilities,flat", "row"),
        node("TopK", "row,highest", "top,places"),
        node("ReduceMean", "top", "score", keepdims=0),
    ]
    if image_threshold is None:
        after += [
            node("ReduceMax", "inside_levels", "fullest", keepdims=0),
            node("GreaterOrEqual", "fullest,half", "bad"),
        ]
    else:
        after.append(node("GreaterOrEqual", "score,alarm", "bad"))
    network = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *network, *after])
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info("image", kinds.UINT8, ["height", "width", 3]))
    shapes: tuple[list[str], ...] = (["height", "width"], ["height", "width"], [], [])
    for name, kind, shape in zip(
        OUTPUTS, (kinds.FLOAT, kinds.BOOL, kinds.FLOAT, kinds.BOOL), shapes, strict=True
    ):
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))


@command()
def main() -> None:
    """Export what the command line says."""
    args = tyro.cli(ExportArgs, description=__doc__)
    state = args.run / "detector.pt"
    with checkpoint.unpacking(state):
        detector = Detector.load(state)
    export(detector, args.out)
    print(f"{args.out}: image uint8 (h, w, 3) to {', '.join(OUTPUTS)}")


if __name__ == "__main__":
    main()
