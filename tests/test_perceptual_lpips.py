"""LPIPS against the package `lpips` of its authors, with its published heads and the same random VGG16."""

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from darkroom.components.base import Component
from darkroom.components.check import check_component
from darkroom.perceptual.base import Distance
from darkroom.perceptual.table import PERCEPTUAL


def load(folder: Path) -> Distance:
    section = PERCEPTUAL["lpips"].section(kind="lpips", weights="vgg")
    return PERCEPTUAL["lpips"].load(section, {"vgg": Component(kind="lpips", path=str(folder))}, "cpu")


@pytest.fixture(scope="module")
def package(unpacked: Callable[[str], Path]) -> Path:
    return unpacked("lpips==0.1.4")


@pytest.fixture(scope="module")
def theirs(package: Path) -> Any:
    """The package's own, with its published heads on a random VGG16."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.syspath_prepend(str(package))
        lpips = importlib.import_module("lpips")
        torch.manual_seed(0)
        found = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
        for name in [name for name in sys.modules if name.split(".")[0] == "lpips"]:
            patch.delitem(sys.modules, name)
    return found


@pytest.fixture(scope="module")
def folder(package: Path, theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That VGG16 by torchvision's names, beside the package's own file of heads."""
    folder = tmp_path_factory.mktemp("lpips")
    slices = [getattr(theirs.net, f"slice{place}").state_dict() for place in range(1, 6)]
    state = {f"features.{name}": tensor for found in slices for name, tensor in found.items()}
    save_file(state, folder / "vgg16.safetensors")
    (folder / "vgg.pth").write_bytes((package / "lpips/weights/v0.1/vgg.pth").read_bytes())
    return folder


def test_it_gives_the_numbers_and_the_gradients_of_the_package(theirs: Any, folder: Path) -> None:
    ours = load(folder)
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(2, 3, 48, 40, generator=generator) * 2 - 1
    other = (pictures + 0.3 * torch.randn(pictures.shape, generator=generator)).clamp(-1, 1)
    found = []
    for measure in (ours, lambda one, two: theirs(one, two).mean()):
        reconstructions = other.clone().requires_grad_()
        value = measure(reconstructions, pictures)
        value.backward()
        found.append((value.detach(), reconstructions.grad))
    (value, gradient), (wanted, wanted_gradient) = found
    torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-3, atol=1e-8)
    assert ours(pictures, pictures) == 0 < value


def test_weights_that_are_missing_or_cut_are_told(folder: Path, tmp_path: Path) -> None:
    component = Component(kind="lpips", path=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"has no vgg16-397923af.pth or vgg16.safetensors, which a lpips has; "
    ):
        check_component(component)
    (tmp_path / "vgg.pth").write_bytes((folder / "vgg.pth").read_bytes())
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg16.safetensors")
    check_component(component)
    with pytest.raises(ValueError, match=r"vgg16.safetensors: lacks features.0.bias"):
        load(tmp_path)
