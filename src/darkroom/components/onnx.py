"""ONNX files among the components: what the configuration says of them, their check, and sessions that run them.

The options and the check are read with the configuration; onnxruntime is an extra, imported where a model is run.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat, model_validator

from darkroom.settings.base import Section
from darkroom.settings.extras import ONNX

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_NAME = r"[^/\\]+\.onnx"
_POINTER = b"version "
# Field numbers and wire types of protobuf: https://protobuf.dev/programming-guides/encoding
_VARINT, _I64, _LENGTH, _I32 = 0, 1, 2, 5
# Of onnx.proto's ModelProto; each model has both.
_GRAPH, _OPSET = 7, 8
_MAX_VARINT_BYTES = 10


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


def check_onnx(path: Path) -> None:
    """Refuse a file that is no whole ONNX model, or a pointer to one (Git LFS), by how its parts follow.

    Raises:
        ValueError: names it.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no regular file")
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(f"{path} is a pointer of Git LFS, not the file: `git lfs pull` fetches it")
        place, found = 0, set()
        while place < size:
            file.seek(place)
            begin = file.read(2 * _MAX_VARINT_BYTES)
            key, used = _varint(begin)
            value, more = _varint(begin[used:])
            wire, field = key & 7, key >> 3
            length = {_VARINT: more, _I64: 8, _LENGTH: more + value, _I32: 4}.get(wire)
            if length is None or not used or not field or (wire in (_VARINT, _LENGTH) and not more):
                raise ValueError(f"{path} is no ONNX file")
            found.add(field)
            place += used + length
    if place != size or not {_GRAPH, _OPSET} <= found:
        raise ValueError(f"{path} is no whole ONNX file; fetch it again")


def _varint(text: bytes) -> tuple[int, int]:
    """(value, bytes it takes) of a number at the beginning of `text`; (0, 0) where there is none."""
    value = 0
    for place, byte in enumerate(text[:_MAX_VARINT_BYTES]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, place + 1
    return 0, 0


def num_threads() -> int:
    """The threads of this job, which onnxruntime does not take from the environment; 0 leaves it to itself."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0)


def open_session(path: Path) -> "InferenceSession":
    """A model that is ready to run: on the GPU where onnxruntime has one, else on the job's threads.

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
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        # Its own errors have no common class.
        raise ValueError(f"{path}: no model that onnxruntime reads: {error}") from None
