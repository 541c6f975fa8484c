"""TensorFlow.js graph models (model.json and its .bin) as ONNX files, for tests on weights of npm's packages.

Only the operations that MobileNetV3-CenterNet is made of. Pictures stay as they are there, channels last: what
ONNX has channels first stands between two transpositions.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx_files import message, number, tensor
from tiny_detectors import attribute, initializer, node

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
SAME = {
    "Mul": "Mul", "Add": "Add", "AddV2": "Add", "Sub": "Sub", "FloorDiv": "Div", "FloorMod": "Mod", "Relu": "Relu",
    "Sigmoid": "Sigmoid", "Equal": "Equal", "Identity": "Identity", "Reshape": "Reshape", "BiasAdd": "Add",
}  # fmt: skip
FLOATS, INTEGERS = 1, 7


def weights(model: dict[str, Any], folder: Path) -> dict[str, np.ndarray]:
    """Name -> float32 or int64 values; they may be stored in fewer bits."""
    found = {}
    for group in model["weightsManifest"]:
        content, place = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
        for weight in group["weights"]:
            how = weight.get("quantization")
            dtype = np.dtype(how["dtype"] if how else weight["dtype"])
            values = np.frombuffer(content, dtype, int(np.prod(weight["shape"])), place)
            place += values.nbytes
            values = values.reshape(weight["shape"])
            if how and how["dtype"] != "float16":
                values = values * np.float32(how["scale"]) + np.float32(how["min"])
            is_float = (weight["dtype"] if how else dtype.name).startswith("float")
            found[weight["name"]] = values.astype(np.float32 if is_float else np.int64)
        assert place == len(content), "the manifest does not tell all of the file"
    return found


class Graph:
    """An ONNX graph that is being written."""

    def __init__(self, model: dict[str, Any], folder: Path) -> None:
        self.nodes = model["modelTopology"]["node"]
        self.values = weights(model, folder)
        self.body: list[bytes] = []
        self.constants = dict(self.values)
        self.used: set[str] = set()

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(values, dtype)
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> str:
        self.compute(kind, inputs, [output], attributes)
        return output

    def compute(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: bytes = b""
    ) -> None:
        self.body.append(node(kind, inputs, outputs, attributes))
        self.used |= set(inputs)

    def first(self, name: str) -> str:
        return self.add(
            "Transpose", [name], f"{name}_first_{len(self.body)}", attribute("perm", ints=TO_FIRST)
        )

    def last(self, name: str, output: str) -> str:
        return self.add("Transpose", [name], output, attribute("perm", ints=TO_LAST))


def option(told: dict[str, Any], name: str, default: Any = None) -> Any:
    """An attribute of a TensorFlow node as a plain value."""
    value = told.get("attr", {}).get(name)
    if value is None:
        return default
    if "list" in value:
        listed = value["list"]
        return [base64.b64decode(text).decode() for text in listed.get("s", [])] or [
            int(i) for i in listed.get("i", [])
        ]
    kind, inner = next(iter(value.items()))
    return {"s": lambda: base64.b64decode(inner).decode(), "i": lambda: int(inner)}.get(kind, lambda: inner)()


def convolution(graph: Graph, told: dict[str, Any], inputs: Sequence[str]) -> None:
    kind = told["op"].lower()
    kernel = graph.values[inputs[1]]
    assert option(told, "data_format", "NHWC") == "NHWC", told["name"]
    height, width, given, _ = kernel.shape
    groups = given if "depthwise" in kind else 1
    kernel = kernel.reshape(height, width, 1, -1) if groups > 1 else kernel
    weight = graph.constant(kernel.transpose(3, 2, 0, 1), np.float32)
    strides, dilations = (option(told, name, [1] * 4)[1:3] for name in ("strides", "dilations"))
    more = (
        attribute("group", groups)
        + attribute("strides", ints=strides)
        + attribute("dilations", ints=dilations)
    )
    # Where a side cannot be filled alike at both ends, TensorFlow fills the end.
    more += attribute("auto_pad", text={"SAME": "SAME_UPPER", "VALID": "VALID"}[option(told, "padding")])
    operations = option(told, "fused_ops", [])
    bias = inputs[2:3] if "BiasAdd" in operations else []
    assert set(operations) <= {"BiasAdd", "Relu", "Relu6"}, operations
    name = told["name"]
    out = graph.add("Conv", [graph.first(inputs[0]), weight, *bias], f"{name}_conv", more)
    out = graph.add("Relu", [out], f"{name}_relu") if "Relu" in operations else out
    out = clip(graph, out, f"{name}_clip") if "Relu6" in operations else out
    graph.last(out, name)


def clip(graph: Graph, given: str, output: str) -> str:
    return graph.add("Clip", [given, graph.constant(0, np.float32), graph.constant(6, np.float32)], output)


def write(graph: Graph, told: dict[str, Any]) -> None:
    """Add what one TensorFlow node computes, under its name."""
    kind, name = told["op"], told["name"]
    inputs = [text.removesuffix(":0").replace(":", "_") for text in told.get("input", []) if text[0] != "^"]
    integers = {place: graph.values[text] for place, text in enumerate(inputs) if text in graph.values}
    if kind in ("Const", "Placeholder"):
        return
    if kind in SAME:
        graph.add(SAME[kind], inputs, name)
    elif "Conv2" in kind or "Conv2dNative" in kind:
        convolution(graph, told, inputs)
    elif kind == "Relu6":
        clip(graph, inputs[0], name)
    elif kind == "Mean":
        axes = attribute("axes", ints=integers[1].flatten().tolist())
        graph.add("ReduceMean", inputs[:1], name, axes + attribute("keepdims", 1))
    elif kind == "MaxPool":
        sizes = attribute("kernel_shape", ints=option(told, "ksize")[1:3]) + attribute(
            "auto_pad", text="SAME_UPPER"
        )
        pooled = graph.add("MaxPool", [graph.first(inputs[0])], f"{name}_pooled", sizes)
        graph.last(pooled, name)
    elif kind == "ResizeBilinear":
        sizes = graph.constant([0, 0, *integers[1].tolist()])
        resize(graph, graph.first(inputs[0]), sizes, name)
    elif kind == "ConcatV2":
        graph.add("Concat", inputs[:-1], name, attribute("axis", int(integers[len(inputs) - 1])))
    elif kind == "Cast":
        is_float = option(told, "DstT") == "DT_FLOAT"
        graph.add("Cast", inputs, name, attribute("to", FLOATS if is_float else INTEGERS))
    elif kind == "TopKV2":
        number_of = graph.constant([int(integers[1])])
        graph.compute("TopK", [inputs[0], number_of], [name, f"{name}_1"])
    elif kind == "ExpandDims":
        graph.add("Unsqueeze", [inputs[0], graph.constant([int(integers[1])])], name)
    elif kind == "GatherV2":
        graph.add("Gather", inputs[:2], name, attribute("axis", int(integers[2])))
    elif kind == "StridedSlice":
        cut(graph, told, inputs[0], [integers[place] for place in (1, 2, 3)])
    else:
        raise NotImplementedError(f"{kind} of {name}")


def resize(graph: Graph, given: str, sizes: str, name: str) -> None:
    # The batch and the channels stay; of them ONNX wants the number too.
    shape = graph.add("Shape", [given], f"{name}_shape")
    both = graph.add("Slice", [shape, graph.constant([0]), graph.constant([2])], f"{name}_kept")
    whole = graph.constant(graph.constants[sizes][2:])
    target = graph.add("Concat", [both, whole], f"{name}_target", attribute("axis", 0))
    how = attribute("mode", text="linear") + attribute("coordinate_transformation_mode", text="asymmetric")
    graph.last(graph.add("Resize", [given, "", "", target], f"{name}_resized", how), name)


def cut(graph: Graph, told: dict[str, Any], given: str, places: Sequence[np.ndarray]) -> None:
    begin, end, step = (values.tolist() for values in places)
    assert not (
        option(told, "shrink_axis_mask") or option(told, "new_axis_mask") or option(told, "ellipsis_mask")
    )
    whole_from, whole_to = option(told, "begin_mask"), option(told, "end_mask")
    begin = [0 if whole_from >> axis & 1 else place for axis, place in enumerate(begin)]
    end = [2**31 - 1 if whole_to >> axis & 1 else place for axis, place in enumerate(end)]
    axes = list(range(len(begin)))
    graph.add("Slice", [given, *map(graph.constant, (begin, end, axes, step))], told["name"])


def to_onnx(path: Path, output: str) -> bytes:
    """The model of a model.json, which gives the node `output`, as an ONNX file with its input's shape."""
    model = json.loads(path.read_text())
    graph = Graph(model, path.parent)
    for told in ordered(graph.nodes, output):
        write(graph, told)
    (given,) = (told for told in graph.nodes if told["op"] == "Placeholder")
    shape = [int(dim["size"]) for dim in given["attr"]["shape"]["shape"]["dim"]]
    body = b"".join(graph.body) + message(2, "graph")
    body += b"".join(
        initializer(name, values) for name, values in graph.constants.items() if name in graph.used
    )
    body += message(11, tensor(given["name"], shape)) + message(12, tensor(output, ()))
    return number(1, 8) + message(7, body) + message(8, message(1, "") + number(2, 13))


def ordered(nodes: Sequence[dict[str, Any]], output: str) -> list[dict[str, Any]]:
    """What an output needs, each node behind those whose outputs it takes."""
    by_name, done, waiting = {told["name"]: told for told in nodes}, {}, [output]
    while waiting:
        name = waiting[-1]
        needs = [text.lstrip("^").split(":")[0] for text in by_name[name].get("input", [])]
        missing = [text for text in needs if text not in done]
        waiting += missing
        if not missing:
            done.setdefault(name, by_name[name])
            waiting.pop()
    return list(done.values())
