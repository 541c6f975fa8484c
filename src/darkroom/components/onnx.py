"""ONNX files among the components: what the configuration says of them, their check, and sessions that run them.

The options and the check are read with the configuration; onnxruntime is an extra, imported where a model is run.
"""

import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field, PositiveFloat, model_validator

from darkroom.settings.base import Section
from darkroom.settings.extras import ONNX

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_NAME = r"[^/\\]+\.onnx"
_POINTER = b"version "
# Wire types of protobuf: https://protobuf.dev/programming-guides/encoding
_VARINT, _I64, _LENGTH, _I32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
# Numbers of the fields of onnx.proto: of ModelProto; of its GraphProto; and of what leads to a tensor's shape.
_GRAPH, _OPSET = 7, 8
_INITIALIZER, _INPUT, _OUTPUT, _VALUE = 5, 11, 12, 13
_VALUE_NAME, _TENSOR_NAME, _TYPE, _TENSOR_TYPE, _SHAPE = 1, 8, 2, 1, 2


class OnnxClassifier(Section):
    """An image classifier in an ONNX file, and how it takes pictures.

    A picture is resized, its centre cut out, and each channel becomes (level - mean) / std.
    """

    file: str = Field(pattern=f"^{_NAME}$", description="the file's name in the folder")
    classes: tuple[str, ...] = Field(
        min_length=1, description="names of its classes, in the order of its outputs"
    )
    resize_px: int = Field(ge=1, le=4096, description="side that pictures are resized to")
    stretch: bool = Field(
        False,
        description="resize both sides to it, whatever the shape; false: the shorter side, and keep the shape",
    )
    crop_px: int = Field(
        ge=1, le=4096, description="side of the square that the model takes, cut out of the centre"
    )
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="how pictures are resized")
    channels: Literal["rgb", "bgr"] = Field("rgb", description="order of the channels")
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="order of the input's axes")
    mean: tuple[float, float, float] = Field(
        description="levels of 0 to 255 that are subtracted, in the order of the channels"
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        description="levels that are divided by, in the same order"
    )
    activation: Literal["none", "softmax", "sigmoid"] = Field(
        description="what makes probabilities of the outputs; none: they are; sigmoid: classes are judged apart"
    )

    @model_validator(mode="after")
    def _fits(self) -> "OnnxClassifier":
        if self.crop_px > self.resize_px:
            raise ValueError(f"crop_px is {self.crop_px}; it should be at most resize_px, {self.resize_px}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a name stands there twice")
        return self


class _Field(NamedTuple):
    """A field of a protobuf message: its number, all of its bytes, and those of what it holds."""

    number: int
    whole: memoryview
    body: memoryview


def check_onnx(path: Path) -> None:
    """Refuse a file that is no whole ONNX model, or a pointer to one (Git LFS), by how its parts follow.

    Raises:
        ValueError: names it.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no regular file")
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(f"{path} is a pointer of Git LFS, not the file: `git lfs pull` fetches it")
        try:
            # Nothing but what is looked at is read.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                found = {number for number, _ in _places(view)}
        except ValueError:
            found = set()
    if not {_GRAPH, _OPSET} <= found:
        raise ValueError(f"{path} is no whole ONNX file; fetch it again")


def _places(message: memoryview) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """(number, (begin, begin of what it holds, end)) of each field.

    Raises:
        ValueError: the message does not end where its last field does, or is none.
    """
    place = 0
    while place < len(message):
        key, used = _varint(message[place : place + _MAX_VARINT_BYTES])
        begin = place + used
        value, more = _varint(message[begin : begin + _MAX_VARINT_BYTES])
        wire, number = key & 7, key >> 3
        length = {_VARINT: more, _I64: 8, _LENGTH: more + value, _I32: 4}.get(wire)
        if length is None or not used or not number or (wire in (_VARINT, _LENGTH) and not more):
            raise ValueError("no protobuf")
        end = begin + length
        if end > len(message):
            raise ValueError("cut short")
        yield number, (place, begin + more if wire == _LENGTH else begin, end)
        place = end


def _fields(message: memoryview) -> Iterator[_Field]:
    for number, (place, begin, end) in _places(message):
        yield _Field(number, message[place:end], message[begin:end])


def _varint(text: memoryview) -> tuple[int, int]:
    """(value, bytes it takes) of a number at the beginning of `text`; (0, 0) where there is none."""
    value = 0
    for place, byte in enumerate(text):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, place + 1
    return 0, 0


def without_sizes(model: bytes) -> bytes:
    """An ONNX model that takes and gives tensors of any sizes, where it names those of one example: some were
    exported so, and onnxruntime would take no other.

    Raises:
        ValueError: it is no whole model.
    """
    return _changed(memoryview(model), {_GRAPH: _graph_without_sizes})


def _graph_without_sizes(graph: memoryview) -> bytes:
    names = {
        bytes(inner.body)
        for field in _fields(graph) if field.number == _INITIALIZER
        for inner in _fields(field.body) if inner.number == _TENSOR_NAME
    }  # fmt: skip

    def value(info: memoryview) -> bytes:
        (name,) = (bytes(field.body) for field in _fields(info) if field.number == _VALUE_NAME)
        return bytes(info) if name in names else _changed(info, {_TYPE: typed})

    def typed(kind: memoryview) -> bytes:
        return _changed(kind, {_TENSOR_TYPE: lambda tensor: _changed(tensor, {_SHAPE: None})})

    # Weights are among the inputs of older files, and keep their shapes; what lies between is inferred.
    return _changed(graph, {_INPUT: value, _OUTPUT: value, _VALUE: None})


def _changed(message: memoryview, changes: Mapping[int, Callable[[memoryview], bytes] | None]) -> bytes:
    """A message with some of its fields, all of messages, changed, or left out (None)."""
    parts: list[bytes | memoryview] = []
    for field in _fields(message):
        if field.number not in changes:
            parts.append(field.whole)
        elif (change := changes[field.number]) is not None:
            body = change(field.body)
            parts += [_number(field.number << 3 | _LENGTH), _number(len(body)), body]
    return b"".join(parts)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def num_threads() -> int:
    """The threads of this job, which onnxruntime does not take from the environment; 0 leaves it to itself."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0)


def open_session(path: Path, any_size: bool = False) -> "InferenceSession":
    """A model that is ready to run: on the GPU where onnxruntime has one, else on the job's threads.

    Args:
        path: the file.
        any_size: it takes tensors of other sizes than those that it names.

    Raises:
        ValueError: the extra is not installed, or onnxruntime cannot read the file.
    """
    ONNX.require(str(path))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.use_deterministic_compute = True
    # Files of older exporters have warnings by the hundred.
    options.log_severity_level = 3
    usable = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in usable if name in onnxruntime.get_available_providers()]
    try:
        model = without_sizes(path.read_bytes()) if any_size else str(path)
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:
        # Its own errors have no common class.
        raise ValueError(f"{path}: no model that onnxruntime reads: {error}") from None
