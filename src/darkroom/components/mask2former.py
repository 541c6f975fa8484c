"""Mask2Former (arXiv 2112.01527) as mmdetection runs it, which GenEval's published scores stand on.

transformers' image processor makes pictures square and looks at masks at 384 px; mmdetection keeps the shape,
looks at masks in the picture's own pixels, and gives boxes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.components.detector import Found, ObjectDetector

# Of mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco: sides in pixels, levels of RGB, and how many objects at most.
SHORT_PX, LONG_PX, MULTIPLE_PX = 800, 1333, 32
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
MAX_INSTANCES = 100

Size = tuple[int, int]


class Instances(NamedTuple):
    """Objects: scores and classes (objects,), masks bool (objects, height, width), boxes float32 (objects, 4)."""

    scores: Tensor
    places: Tensor
    masks: Tensor
    boxes: Tensor


class Mask2Former(ObjectDetector):
    """transformers' Mask2FormerForUniversalSegmentation that was trained on instances, float32."""

    def __init__(self, model: Any, where: str) -> None:
        names = model.config.id2label
        super().__init__([str(names[i]) for i in range(len(names))], where)
        self.model = model

    @property
    def takes(self) -> dict[str, Any]:
        """As of every `ObjectDetector`."""
        return {
            "pictures": f"shorter side {SHORT_PX} px, longer at most {LONG_PX} px (bilinear), filled to multiples"
            f" of {MULTIPLE_PX} px",
            "mean": list(MEAN),
            "std": list(STD),
            "outputs": f"mmdetection's: class times mean of its mask, best {MAX_INSTANCES}, masks in the picture's"
            " pixels, tight boxes",
        }

    @torch.no_grad()
    def detect(self, image: np.ndarray, min_score: float) -> list[Found]:
        """As of every `ObjectDetector`."""
        pixels, resized = prepared(image)
        outputs = self.model(pixel_values=pixels.to(self.model.device))
        logits, masks = outputs.class_queries_logits[0].float(), outputs.masks_queries_logits[0].float()
        height, width = image.shape[:2]
        found = instances(logits, masks, pixels.shape[-2:], resized, (height, width), min_score)
        order = found.scores.argsort(descending=True, stable=True).tolist()
        return [
            Found(
                self.labels[int(found.places[i])],
                tuple(found.boxes[i].tolist()),
                float(found.scores[i]),
                found.masks[i].cpu().numpy(),
            )
            for i in order
        ]


def prepared(image: np.ndarray) -> tuple[Tensor, Size]:
    """uint8 RGB (height, width, 3) -> float32 (1, 3, H, W), filled with zeros, and the size before that."""
    import cv2

    height, width = image.shape[:2]
    scale = min(LONG_PX / max(height, width), SHORT_PX / min(height, width))
    new_height, new_width = (max(1, int(side * scale + 0.5)) for side in (height, width))
    resized = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    levels = (resized.astype(np.float32) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    pixels = torch.from_numpy(levels).permute(2, 0, 1)[None]
    right, below = (-side % MULTIPLE_PX for side in (new_width, new_height))
    return F.pad(pixels, (0, right, 0, below)), (new_height, new_width)


def instances(
    logits: Tensor,
    masks: Tensor,
    padded: Sequence[int],
    resized: Size,
    original: Size,
    min_score: float = 0.0,
) -> Instances:
    """What mmdetection makes of a Mask2Former's outputs.

    Args:
        logits: (queries, classes + 1), the last one for no object.
        masks: logits (queries, h, w).
        padded, resized, original: (height, width) of what the model saw, of the picture in it, and of the picture.
        min_score: objects with more are given; one without a pixel is none.
    """
    probabilities = logits.softmax(dim=-1)[:, :-1]
    number = probabilities.shape[1]
    scores, order = probabilities.flatten().topk(min(MAX_INSTANCES, probabilities.numel()))
    # A mean of its mask is below 1: the others cannot come above it.
    order, scores = order[scores > min_score], scores[scores > min_score]
    queries, index = (order // number).unique(return_inverse=True)
    height, width = resized
    # One query after the other: a hundred masks in a large picture's pixels are a gigabyte.
    kept = [_mask(masks[query], padded, (height, width), original) for query in queries.tolist()]
    if not kept:
        empty = torch.zeros(0, *original, dtype=torch.bool, device=masks.device)
        return Instances(scores, order, empty, torch.zeros(0, 4))
    quality = torch.stack([mean for _, mean in kept])[index]
    scores = scores * quality
    chosen = torch.nonzero(scores > min_score).flatten()
    found = torch.stack([kept[i][0] for i in index.tolist()])[chosen] if len(chosen) else kept[0][0][None][:0]
    return Instances(scores[chosen], (order % number)[chosen], found, boxes_of(found))


def _mask(logits: Tensor, padded: Sequence[int], resized: Size, original: Size) -> tuple[Tensor, Tensor]:
    """A query's mask in the picture's pixels, and the mean of its probabilities inside."""
    large = F.interpolate(logits[None, None], tuple(padded), mode="bilinear", align_corners=False)
    inside = large[..., : resized[0], : resized[1]]
    whole = F.interpolate(inside, original, mode="bilinear", align_corners=False)[0, 0]
    mask = whole > 0
    return mask, (whole.sigmoid() * mask).sum() / (mask.sum() + 1e-6)


def boxes_of(masks: Tensor) -> Tensor:
    """Tight boxes (objects, 4): left, top, right, bottom; the last two lie behind the last pixel."""
    boxes = torch.zeros(len(masks), 4)
    for index, mask in enumerate(masks):
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        if len(rows):
            edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            boxes[index] = torch.tensor([int(edge) for edge in edges])
    return boxes
