"""Object detectors in ONNX files: the configuration says how they take pictures and what they give."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from darkroom.settings.base import Section

if TYPE_CHECKING:
    import numpy as np

Pair = tuple[float, float]


class OnnxDetector(Section):
    """An object detector in an ONNX file: how it takes pictures, one at a time, and what it gives.

    A picture becomes a square, and each channel (level - mean) / std.
    """

    file: str = Field(pattern=r"^[^/\\]+\.onnx$", description="the file's name in the folder")
    classes: tuple[str, ...] = Field(
        min_length=1, description="names of its classes, in the order of its outputs"
    )
    size_px: int = Field(ge=1, le=4096, description="side of the square that the model takes")
    stretch: bool = Field(
        False,
        description="resize both sides to it, whatever the shape; false: the longer side, and fill the rest to the"
        " right and below",
    )
    fill: int = Field(0, ge=0, le=255, description="level of what is filled")
    channels: Literal["rgb", "bgr"] = Field("rgb", description="order of the channels")
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="order of the input's axes")
    mean: tuple[float, float, float] = Field(
        (0.0, 0.0, 0.0), description="levels of 0 to 255 that are subtracted, in the order of the channels"
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (1.0, 1.0, 1.0), description="levels that are divided by, in the same order"
    )
    gives: Literal["rows", "yolo", "boxes_and_scores"] = Field(
        description="rows: the first output has left, top, right, bottom, score and class's index of each object;"
        " yolo: centre's x and y, width, height and the score of each class, down its columns; boxes_and_scores:"
        " two outputs, left, top, right and bottom, and the score of each class"
    )
    unit: Literal["pixels", "shares"] = Field(
        "pixels", description="of boxes: pixels of the square, or shares of its side"
    )
    max_overlap: float = Field(
        1.0,
        gt=0,
        le=1,
        description="of two boxes of a class with a larger intersection / union the better counts; 1: both",
    )

    @model_validator(mode="after")
    def _classes_differ(self) -> "OnnxDetector":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a name stands there twice")
        return self


def prepared(image: "np.ndarray", options: OnnxDetector) -> tuple["np.ndarray", Pair]:
    """uint8 RGB (height, width, 3) -> float32 as the model takes it with an axis of pictures, and how many times
    as large a pixel is there, (across, down)."""
    import numpy as np
    from PIL import Image

    height, width = image.shape[:2]
    side = options.size_px
    scale = side / max(height, width)
    size = (side, side) if options.stretch else tuple(max(1, round(n * scale)) for n in (width, height))
    square = Image.new("RGB", (side, side), (options.fill,) * 3)
    square.paste(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    levels = np.asarray(square, np.float32)
    levels = levels[..., ::-1] if options.channels == "bgr" else levels
    mean, std = (np.array(values, np.float32) for values in (options.mean, options.std))
    pixels = np.asarray((levels - mean) / std, np.float32)
    pixels = pixels.transpose(2, 0, 1) if options.layout == "nchw" else pixels
    ratio = (side / width, side / height) if options.stretch else (scale, scale)
    return np.ascontiguousarray(pixels[None]), ratio


def read_outputs(
    outputs: "list[np.ndarray]", options: OnnxDetector, where: str
) -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
    """Boxes in pixels of the square, float32 (objects, 4), their scores and their classes' indices.

    Raises:
        ValueError: the outputs are not as the options say.
    """
    import numpy as np

    found = [output.reshape(-1, *output.shape[-2:])[0] for output in outputs if output.ndim >= 2]
    number = len(options.classes)
    known: dict[str, list[tuple[Any, Any]]] = {
        "rows": [("objects", 6)],
        "yolo": [(4 + number, "objects")],
        "boxes_and_scores": [("objects", 4), ("objects", number)],
    }
    wanted = known[options.gives]
    fits = len(found) >= len(wanted) and all(
        isinstance(want, str) or want == got
        for shape, output in zip(wanted, found, strict=False)
        for want, got in zip(shape, output.shape, strict=True)
    )
    if not fits or (options.gives == "boxes_and_scores" and len(found[0]) != len(found[1])):
        raise ValueError(
            f"{where} gives {[output.shape for output in outputs]}; with gives: {options.gives} and {number}"
            f" classes it should give {wanted}"
        )
    if options.gives == "rows":
        boxes, scores, places = found[0][:, :4], found[0][:, 4], found[0][:, 5].astype(np.int64)
        if ((places < 0) | (places >= number)).any():
            raise ValueError(f"{where} gives classes up to {places.max()}; the configuration names {number}")
    else:
        boxes, by_class = (found[0][:4].T, found[0][4:].T) if options.gives == "yolo" else found[:2]
        if options.gives == "yolo":
            boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        places = by_class.argmax(axis=1)
        scores = by_class[np.arange(len(by_class)), places]
    unit = options.size_px if options.unit == "shares" else 1
    return np.asarray(boxes * unit, np.float32), np.asarray(scores, np.float32), places
