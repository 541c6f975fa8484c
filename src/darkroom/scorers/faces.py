"""How many faces are in a picture, and how much of it the largest is, by CenterFace (Xu et al. 2019).

The network gives for each cell of 4 x 4 pixels how likely a face's centre lies in it, the logarithms of the face's
height and width in cells, and where in the cell the centre lies.
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from darkroom.components.base import ComponentOf
from darkroom.scorers.base import Part, Scorer
from darkroom.settings.base import Section

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from onnxruntime import InferenceSession

_FILE = "centerface.onnx"
_CELL_PX = 4
# The network halves pictures five times.
_MULTIPLE_PX = 32
# Boxes that have more in common are of one face: intersection / union.
_MAX_OVERLAP = 0.3
_DECIMALS = 4


class Faces(Section):
    """`faces`, how many, and `face_area`, the largest one's share of the picture's area, by CenterFace."""

    model: Annotated[str, ComponentOf("face_detector")] = Field(
        description="name of a face_detector in config/components.yaml"
    )
    max_side_px: int = Field(
        640,
        ge=64,
        le=4096,
        description="pictures with a longer side are reduced to it; faces below about 14 px are missed",
    )
    min_confidence: float = Field(0.5, gt=0, le=1, description="what is less likely a face does not count")


def score(options: Faces, part: Part) -> "pl.DataFrame":
    """Null where there is no picture; without a face the area is 0."""
    import polars as pl

    from darkroom.components.files import component_folder
    from darkroom.components.onnx import open_session

    folder = component_folder(part.components[options.model], "face_detector")
    session = open_session(folder / _FILE, any_size=True)
    part.tell_of(
        options.model,
        pictures=f"longer side at most {options.max_side_px} px (bilinear), then black to multiples of"
        f" {_MULTIPLE_PX} px; RGB, 0 to 255",
    )
    rows: list[tuple[int | None, float | None]] = [(None, None)] * part.rows.height
    for place, image in part.images():
        boxes = find_faces(session, image, options.max_side_px, options.min_confidence)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        rows[place] = len(boxes), round(float(areas.max(initial=0)), _DECIMALS)
    return pl.DataFrame(rows, schema={"faces": pl.Int32, "face_area": pl.Float64}, orient="row")


def find_faces(
    session: "InferenceSession", image: "np.ndarray", max_side_px: int, min_confidence: float
) -> "np.ndarray":
    """The faces in a uint8 RGB picture (height, width, 3), the likeliest first.

    Returns:
        float32 (faces, 4): left, top, right and bottom, as shares of the picture's width and height.

    Raises:
        ValueError: the model is no CenterFace.
    """
    import numpy as np
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(1, max_side_px / max(height, width))
    height, width = (max(1, round(side * scale)) for side in (height, width))
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    # Black to the right and below; where faces lie does not change.
    padded = np.zeros(
        (1, 3, *(-(-side // _MULTIPLE_PX) * _MULTIPLE_PX for side in (height, width))), np.float32
    )
    padded[0, :, :height, :width] = small.transpose(2, 0, 1)
    outputs = session.run(None, {session.get_inputs()[0].name: padded})
    cells = tuple(side // _CELL_PX for side in padded.shape[2:])
    if [output.shape[:2] for output in outputs] != [(1, n) for n in (1, 2, 2, 10)] or any(
        output.shape[2:] != cells for output in outputs
    ):
        raise ValueError(
            f"a face_detector's file should be CenterFace's; for {padded.shape} this one gives"
            f" {[output.shape for output in outputs]}"
        )
    likely, log_size, offset, _ = (output[0] for output in outputs)
    boxes = decode(likely, log_size, offset, min_confidence)
    return (boxes / np.array([width, height] * 2, np.float32)).clip(0, 1)


def decode(
    likely: "np.ndarray", log_size: "np.ndarray", offset: "np.ndarray", min_confidence: float
) -> "np.ndarray":
    """Boxes of faces in pixels, float32 (faces, 4), the likeliest first, each face once.

    Args:
        likely: (1, rows, columns), the probability that a face's centre lies in a cell.
        log_size: (2, rows, columns), logarithm of its height and width in cells.
        offset: (2, rows, columns), from the middle of the cell to the centre, down and to the right, in cells.
        min_confidence: least probability.
    """
    import numpy as np
    import torch
    from torchvision.ops import nms

    rows, columns = np.nonzero(likely[0] >= min_confidence)
    centre = np.stack([rows, columns]) + offset[:, rows, columns] + 0.5
    half = np.exp(log_size[:, rows, columns]) / 2
    corners = np.concatenate([(centre - half)[::-1], (centre + half)[::-1]]).T * _CELL_PX
    boxes = torch.from_numpy(np.ascontiguousarray(corners, np.float32))
    kept = nms(boxes, torch.from_numpy(likely[0, rows, columns]), _MAX_OVERLAP)
    return boxes[kept].numpy()


SPEC = Scorer(
    name="faces",
    section=Faces,
    columns={"faces": "Int32", "face_area": "Float64"},
    reads="pixels",
    needs=(),
    score=score,
    version=2,
)
