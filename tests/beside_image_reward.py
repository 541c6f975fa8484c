"""The rewards that the authors' package gives: image_reward 1.5 with a transformers and a timm of its time.

    python tests/beside_image_reward.py FOLDER

FOLDER holds state.pt, med_config.json, vocab.txt, cases.json ([picture, prompt]) and the pictures; rewards.json is
written there. What the package imports and this does not use has stand-ins. Its vision encoder has the sizes of
small.json: the package builds ViT-B and ViT-L alone.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class StandIn(ModuleType):
    """A module with a class of any name."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


for unused in ("ImageReward.ReFL", "clip", "fairscale", "fairscale.nn", "fairscale.nn.checkpoint"):
    sys.modules[unused] = StandIn(unused)
activations = "fairscale.nn.checkpoint.checkpoint_activations"
sys.modules[activations] = StandIn(activations)

import torch  # noqa: E402
from ImageReward.ImageReward import ImageReward  # noqa: E402
from ImageReward.models.BLIP import blip_pretrain  # noqa: E402
from ImageReward.models.BLIP.vit import VisionTransformer  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import BertTokenizer  # noqa: E402

folder = Path(sys.argv[1])
small = json.loads((folder / "small.json").read_text())


def vision_encoder(*_: Any) -> tuple[Any, int]:
    """In place of ViT-L."""
    return VisionTransformer(img_size=224, patch_size=16, **small), small["embed_dim"]


def tokenizer() -> Any:
    """As the package's own, of a file that is here."""
    found = BertTokenizer(str(folder / "vocab.txt"))
    found.add_special_tokens({"bos_token": "[DEC]"})
    found.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    return found


blip_pretrain.create_vit, blip_pretrain.init_tokenizer = vision_encoder, tokenizer
model = ImageReward(med_config=str(folder / "med_config.json")).eval()
model.load_state_dict(torch.load(folder / "state.pt", weights_only=True), strict=True)
with torch.no_grad():
    rewards = [
        model.score(prompt, Image.open(folder / picture))
        for picture, prompt in json.loads((folder / "cases.json").read_text())
    ]
(folder / "rewards.json").write_text(json.dumps(rewards))
