"""The segmenter of a run as one ONNX file: `nbs export --run RUN_DIR --out detector.onnx`.

Everything is inside the graph. Input `image`, uint8 (h, w, 3), RGB, of any size from 64x64 up. Outputs
`probability`, float32 (h, w), `mask`, bool (h, w), `score`, float32, the mean of the highest 0.1 % of the
probabilities, and `bad`, bool, whether the image is called bad. Needs the extra `export`.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from nbs_env.common import checkpoint
from nbs_env.common.errors import RunError
from nbs_env.common.runs import command
from nbs_env.detect.config import Size
from nbs_env.detect.detector import Detector
from nbs_env.detect.segmenter import STRIDE, Segmenter, probable

OUTPUTS = ("probability", "mask", "score", "bad")
OPSET = 18
"""The first one whose Resize can smooth while it shrinks, as Pillow does."""


@dataclass(frozen=True)
class ExportArgs:
    """What to export."""

    run: Path
    """Directory of a finished run with a segmenter, or its detector.pt."""
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
    side, size = detector.image_size, detector.segmenter_size
    sides = {2: "rows", 3: "columns"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other exporter needs a package more, for the same graph
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, side, side),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=["small"],
            output_names=["whole_map"],
            dynamic_axes=None if size == "square" else {"small": sides},
        )
    model = onnx.load_from_string(buffer.getvalue())
    around = _Surroundings(onnx, size, side, detector.segmenter_threshold, detector.image_threshold)
    _surround(model.graph, around)
    facts = {"image_size": side if size == "square" else size, "threshold": detector.segmenter_threshold}
    facts["white"] = 255
    onnx.helper.set_model_props(model, {name: str(value) for name, value in facts.items()})
    model.producer_name = "neural-batch-sampling"
    onnx.checker.check_model(model, full_check=True)
    checkpoint.replace_file(file, lambda part: part.write_bytes(model.SerializeToString()))


class _Probable(torch.nn.Module):
    """Images (1, 3, H, W) in [0, 1], H and W multiples of 16, to probabilities (1, H, W)."""

    def __init__(self, segmenter: Segmenter, symmetries: bool) -> None:
        super().__init__()
        self.segmenter, self.symmetries = segmenter, symmetries

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return probable(self.segmenter, images, torch.float32, self.symmetries)


class _Surroundings:
    """What `Detector.predict` does before and after the network, as nodes of a graph."""

    def __init__(self, onnx: Any, size: Size, side: int, threshold: float, alarm: float | None) -> None:
        self.onnx, self.size, self.alarm, self.float = onnx, size, alarm, onnx.TensorProto.FLOAT
        self.constants = {
            "one_rgb": np.array([1, 3]),
            "zero_pads": np.zeros(6, np.int64),
            "thousand": np.array([1000]),
            "stride": np.array([STRIDE]),
            "one": np.array([1]),
            "two": np.array([2]),
            "first": np.array([0]),
            "flat": np.array([-1]),
            "axes": np.array([0, 1]),
            "axes_of_map": np.array([1, 2]),
            "origin": np.array([0, 0]),
            "ones": np.array([1, 1]),
            "zero": np.array(0, np.float32),
            "white": np.array(255, np.float32),
            "threshold": np.array(threshold, np.float32),
            "half": np.array(0.5, np.float32),
        }
        if size == "square":
            self.constants["working"] = np.array([side, side])
        elif size != "own":
            self.constants["doubled"] = np.array([2 * size])
        if alarm is not None:
            self.constants["alarm"] = np.array(alarm, np.float32)

    def node(self, kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
        """One operation; names are separated by commas, and those of constants are looked up."""
        names = [f"nbs_{name}" if name in self.constants else name for name in inputs.split(",")]
        return self.onnx.helper.make_node(kind, names, outputs.split(","), **attributes)

    def resize(self, source: str, sizes: str, target: str, mode: str) -> Any:
        """Resample as Pillow does."""
        settings = {"antialias": 1, "cubic_coeff_a": -0.5, "exclude_outside": 1}
        return self.node("Resize", f"{source},,,{sizes}", target, mode=mode, **settings)

    def before(self) -> list[Any]:
        """From `image` to `small`: resized, as levels from 0 to 1, padded to multiples of 16."""
        before = [
            self.node("Transpose", "image", "channels_first", perm=[2, 0, 1]),
            self.node("Cast", "channels_first", "levels", to=self.float),
            self.node("Unsqueeze", "levels,first", "batch"),
            self.node("Shape", "image", "shape"),
            self.node("Slice", "shape,first,two", "size"),
        ]
        if self.size == "own":
            before += [self.node("Identity", "size", "working"), self.node("Identity", "batch", "clipped")]
        elif self.size != "square":  # as `working_size` has it
            before += [
                self.node("ReduceMax", "size", "longer", keepdims=1),
                self.node("Mul", "size,doubled", "size_doubled"),
                self.node("Add", "size_doubled,longer", "numerator"),
                self.node("Mul", "longer,two", "denominator"),
                self.node("Div", "numerator,denominator", "rounded"),
                self.node("Max", "rounded,one", "working"),
            ]
        if self.size != "own":
            before += [
                # Pillow shrinks rows, rounds, shrinks columns, rounds.
                self.node("Slice", "shape,first,one", "height"),
                self.node("Slice", "working,one,two", "working_width"),
                self.node("Concat", "one_rgb,height,working_width", "sizes_between", axis=0),
                self.resize("batch", "sizes_between", "rows_of_it", "cubic"),
                self.node("Add", "rows_of_it,half", "rows_and_half"),
                self.node("Floor", "rows_and_half", "rows_rounded"),
                self.node("Clip", "rows_rounded,zero,white", "between"),
                self.node("Concat", "one_rgb,working", "sizes_small", axis=0),
                self.resize("between", "sizes_small", "columns_of_it", "cubic"),
                self.node("Add", "columns_of_it,half", "columns_and_half"),
                self.node("Floor", "columns_and_half", "columns_rounded"),
                self.node("Clip", "columns_rounded,zero,white", "clipped"),
            ]
        before += [
            self.node("Div", "clipped,white", "unpadded"),
            self.node("Neg", "working", "negative"),
            self.node("Mod", "negative,stride", "lacking"),
            self.node("Concat", "zero_pads,lacking", "pads", axis=0),
            self.node("Pad", "unpadded,pads", "small", mode="edge"),
        ]
        return before

    def after(self) -> list[Any]:
        """From `whole_map` to the outputs."""
        after = [
            self.node("Slice", "whole_map,origin,working,axes_of_map", "probabilities"),
            self.node("Concat", "ones,size", "whole_sizes", axis=0),
            self.node("Unsqueeze", "probabilities,first", "planes"),
            self.resize("planes", "whole_sizes", "whole", "linear"),
            self.node("Squeeze", "whole,axes", "probability"),
            self.node("GreaterOrEqual", "planes,threshold", "inside"),
            self.node("Cast", "inside", "inside_levels", to=self.float),
            self.resize("inside_levels", "whole_sizes", "whole_mask", "linear"),
            self.node("GreaterOrEqual", "whole_mask,half", "mask_plane"),
            self.node("Squeeze", "mask_plane,axes", "mask"),
            self.node("Reshape", "probabilities,flat", "row"),
            self.node("Size", "row", "pixels"),
            self.node("Div", "pixels,thousand", "thousandth"),
            self.node("Max", "thousandth,one", "highest"),
            self.node("TopK", "row,highest", "top,places"),
            self.node("ReduceMean", "top", "score", keepdims=0),
        ]
        if self.alarm is None:
            after += [
                self.node("ReduceMax", "inside_levels", "fullest", keepdims=0),
                self.node("GreaterOrEqual", "fullest,half", "bad"),
            ]
        else:
            after.append(self.node("GreaterOrEqual", "score,alarm", "bad"))
        return after


def _surround(graph: Any, around: _Surroundings) -> None:
    """Put `around` around the network."""
    helper, kinds = around.onnx.helper, around.onnx.TensorProto
    for name, value in around.constants.items():
        graph.initializer.append(around.onnx.numpy_helper.from_array(value, f"nbs_{name}"))
    network = list(graph.node)
    del graph.node[:]
    graph.node.extend([*around.before(), *network, *around.after()])
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info("image", kinds.UINT8, ["height", "width", 3]))
    shapes: tuple[list[str], ...] = (["height", "width"], ["height", "width"], [], [])
    for name, kind, shape in zip(
        OUTPUTS, (kinds.FLOAT, kinds.BOOL, kinds.FLOAT, kinds.BOOL), shapes, strict=True
    ):
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Export what the command line says."""
    args = tyro.cli(ExportArgs, args=argv, description=__doc__)
    state = Detector.file_of(args.run)
    with checkpoint.unpacking(state):
        detector = Detector.load(state)
    export(detector, args.out)
    print(f"{args.out}: image uint8 (h, w, 3) to {', '.join(OUTPUTS)}")


if __name__ == "__main__":
    main()
