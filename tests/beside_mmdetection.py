"""A Mask2Former's outputs read by mmdetection itself and by us; ends with an error where they differ.

mmdetection imports compiled operations (mmcv.ops) and packages that this reading does not need: stand-ins do.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from darkroom.components.mask2former import instances

NOT_NEEDED = ("mmcv.ops", "pycocotools", "terminaltables", "yapf")
PADDED = (160, 288)


class StandIn(ModuleType):
    """A module with a class of any name."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (torch.nn.Module,), {})


class StandIns(MetaPathFinder, Loader):
    """Finds them, whatever is imported of what is not needed."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        wanted = any(name == one or name.startswith(f"{one}.") for one in NOT_NEEDED)
        return ModuleSpec(name, self, is_package=True) if wanted else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def main() -> None:
    sys.meta_path.insert(0, StandIns())
    from mmdet.models.seg_heads.panoptic_fusion_heads.maskformer_fusion_head import MaskFormerFusionHead

    options = {"panoptic_on": False, "instance_on": True, "max_per_image": 100}
    head = MaskFormerFusionHead(80, 0, test_cfg=options)
    number = 0
    for seed in range(10):
        torch.manual_seed(seed)
        logits = 3 * torch.randn(100, 81)
        masks = 4 * torch.nn.functional.interpolate(torch.randn(1, 100, 5, 9), (40, 72), mode="bilinear")[0]
        inside, size = (150 + seed, 270), (75 + seed, 135)
        large = torch.nn.functional.interpolate(masks[None], PADDED, mode="bilinear", align_corners=False)
        told = SimpleNamespace(metainfo={"img_shape": inside, "ori_shape": size})
        theirs = head.predict(logits[None], large, [told], rescale=True)[0]["ins_results"]
        ours = instances(logits, masks, PADDED, inside, size)
        order, mine = (
            scores.argsort(descending=True, stable=True) for scores in (theirs.scores, ours.scores)
        )
        # Those without a pixel, which they give a score of 0, we leave out.
        assert (theirs.scores[order[len(mine) :]] == 0).all(), f"seed {seed}: objects are missing"
        order = order[: len(mine)]
        for name, other in (("labels", ours.places), ("bboxes", ours.boxes), ("masks", ours.masks)):
            assert torch.equal(getattr(theirs, name)[order], other[mine]), f"seed {seed}: {name} differ"
        torch.testing.assert_close(theirs.scores[order], ours.scores[mine], rtol=0, atol=1e-6)
        number += len(mine)
    print(f"{number} objects are equal")


if __name__ == "__main__":
    main()
