"""The Inception of FID: torch-fidelity's network and weights, with the resize of one of three libraries.

The weights are those of TensorFlow's Inception of 2015-12-05. Their file is a pickle: only tensors are read of it.
"""

import io
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from darkroom.components.base import Component, Resize
from darkroom.components.check import INCEPTION_WEIGHTS
from darkroom.components.files import WEIGHTS, component_folder, read_tensors, read_weights

SIZE = 299
LIBRARY = f"torch-fidelity {version('torch-fidelity')}"


class Inception:
    """The network up to its last pooling: 2048 features a picture.

    Args:
        network: torch-fidelity's.
        resize: `tf1`: bilinear without antialias as TensorFlow 1 has it, torch-fidelity's; `clean`: PIL's bicubic
            with antialias, each channel in float, clean-fid's; `torchmetrics`: bilinear with antialias, which it
            takes since 1.8.
    """

    def __init__(self, network: torch.nn.Module, resize: Resize) -> None:
        # Its children in their order are what its forward calls in turn, after the resize and before the logits.
        self.body = torch.nn.Sequential(*(layer for name, layer in network.named_children() if name != "fc"))
        self.resize = resize

    @torch.no_grad()
    def encode_images(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB (height, width, 3) pictures of any sizes -> float32 (pictures, 2048), on the CPU."""
        resized = torch.stack([_RESIZES[self.resize](picture) for picture in pictures])
        device = next(self.body.parameters()).device
        features: Tensor = self.body((resized.to(device) - 128) / 128)
        return features.flatten(1).cpu()


def resize_tf1(picture: np.ndarray) -> Tensor:
    """uint8 (height, width, 3) -> float32 (3, 299, 299), 0 to 255, as TensorFlow 1 resizes."""
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(
        _floats(picture), (SIZE, SIZE), align_corners=False
    )
    return resized[0]


def resize_clean(picture: np.ndarray) -> Tensor:
    """uint8 (height, width, 3) -> float32 (3, 299, 299), 0 to 255, as clean-fid resizes: nothing is rounded
    (Parmar et al., arXiv 2104.11222)."""
    channels = [
        Image.fromarray(channel.astype(np.float32)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        for channel in np.moveaxis(picture, 2, 0)
    ]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels])).clip(0, 255)


def resize_torchmetrics(picture: np.ndarray) -> Tensor:
    """uint8 (height, width, 3) -> float32 (3, 299, 299), 0 to 255, as torchmetrics resizes."""
    resized: Tensor = F.interpolate(
        _floats(picture), (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0]


def _floats(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()


_RESIZES = {"tf1": resize_tf1, "clean": resize_clean, "torchmetrics": resize_torchmetrics}


def load_inception(component: Component, resize: Resize) -> Inception:
    """The network with the weights in a component's folder, on the GPU where there is one.

    Raises:
        ValueError: the folder has no file of weights, or its file holds others.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = _read(component)
    # The library unpickles what it is given; that is written here, of tensors alone.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], buffer)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise ValueError(f"{component.path}: are no weights of FID's Inception: {reason}") from None
    inception = Inception(network, resize)
    inception.body.to("cuda" if torch.cuda.is_available() else "cpu")
    return inception


def _read(component: Component) -> dict[str, Tensor]:
    folder = component_folder(component, "inception")
    if (folder / WEIGHTS).is_file():
        return read_weights(folder)
    for name in INCEPTION_WEIGHTS:
        path = folder / name
        if not path.is_file():
            continue
        return read_tensors(path)
    raise ValueError(f"{folder} has no {' or '.join((WEIGHTS, *INCEPTION_WEIGHTS))}")
