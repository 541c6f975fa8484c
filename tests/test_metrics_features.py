"""FID, KID and FD-DINOv2 are torch-fidelity's and dgm-eval's numbers, on equal random weights."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms as T
from drawn_pictures import write_references
from PIL import Image
from safetensors.torch import save_file
from threadpoolctl import threadpool_limits
from tiny_features import pictures, write_dinov2, write_inception, write_pictures
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import NoTrainInceptionV3
from transformers import BitImageProcessorPil, Dinov2Model

from darkroom.components.base import Component, named_components
from darkroom.components.check import INCEPTION_WEIGHTS, check_component
from darkroom.components.dinov2 import load_dinov2
from darkroom.components.inception import load_inception, resize_clean, resize_tf1
from darkroom.metrics.base import Inputs
from darkroom.metrics.frechet import frechet_distance
from darkroom.metrics.kid import kid
from darkroom.metrics.nearest import nearest
from darkroom.metrics.table import METRICS

SIZES = ((40, 56), (299, 299), (320, 200), (31, 400))


@dataclass
class Given:
    """Pictures that stand for drawn ones, and for real ones."""

    found: list[np.ndarray]

    def pictures(self, number: int = 10**6) -> Iterator[np.ndarray]:
        return iter(self.found[:number])


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Component:
    return write_inception(tmp_path_factory.mktemp("features") / "inception")


def weights_of(component: Component) -> Path:
    return Path(component.path) / INCEPTION_WEIGHTS[0]


def measured(name: str, component: Component, real: list, drawn: list, **options):
    inputs = Inputs({"trained": Given(drawn)}, [], {"net": component}, Given(real))
    section = METRICS[name].section(**{component.kind: "net"}, batch_size=7, **options)
    found = METRICS[name].measure(section, inputs)
    return found.table[name].item(), found.protocol


def test_inceptions_features_are_torch_fidelitys_whatever_the_sizes(inception) -> None:
    found = pictures(4, 0, SIZES)
    library = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(weights_of(inception)))
    expected = torch.cat([library(torch.tensor(p).permute(2, 0, 1)[None])[0] for p in found])
    features = load_inception(inception, "tf1").encode_images(found)
    assert features.shape == (4, 2048) and expected.std() > 0.01
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    clean = load_inception(inception, "clean").encode_images(found)
    assert (clean[1] - features[1]).abs().max() < 1e-4 * features.max()  # 299 px are not resized
    assert (clean - features)[[0, 2, 3]].abs().amax(dim=1).min() > 1e-3 * features.max()


def test_with_torchmetrics_resize_features_are_torchmetrics(inception) -> None:
    found = pictures(4, 6, SIZES)
    library = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights_of(inception)))
    expected = torch.cat([library(torch.tensor(p).permute(2, 0, 1)[None]) for p in found])
    features = load_inception(inception, "torchmetrics").encode_images(found)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    other = load_inception(inception, "clean").encode_images(found)
    assert (other - features)[[0, 2, 3]].abs().amax(dim=1).min() > 3e-4 * features.max()


@pytest.mark.parametrize("size", SIZES)
def test_the_clean_resize_is_pils_bicubic_with_antialias_and_nothing_is_rounded(size) -> None:
    """torch's antialiased bicubic filter is PIL's, and a picture of its own that is rounded is not."""
    (picture,) = pictures(1, 3, (size,))
    pixels = torch.tensor(picture).permute(2, 0, 1)[None].float()
    expected = F.interpolate(pixels, (299, 299), mode="bicubic", antialias=True, align_corners=False)
    found = resize_clean(picture)
    torch.testing.assert_close(found, expected[0].clip(0, 255), rtol=0, atol=5e-3)
    if size != (299, 299):
        assert (found - found.round()).abs().max() > 0.3
        assert (found - resize_tf1(picture)).abs().max() > 1


@pytest.mark.parametrize("name", [INCEPTION_WEIGHTS[1], "model.safetensors"])
def test_weights_may_have_pytorch_fids_name_or_be_safetensors(inception, tmp_path, name) -> None:
    state = torch.load(weights_of(inception), weights_only=True)
    save = save_file if name.endswith("safetensors") else torch.save
    save(state, tmp_path / name)
    other = Component(kind="inception", path=str(tmp_path))
    check_component(other)
    found = pictures(1, 1)
    expected = load_inception(inception, "tf1").encode_images(found)
    assert torch.equal(load_inception(other, "tf1").encode_images(found), expected)


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_file_of_weights_runs_no_code_and_other_weights_are_refused(tmp_path) -> None:
    component, path = Component(kind="inception", path=str(tmp_path)), tmp_path / INCEPTION_WEIGHTS[0]
    path.write_bytes(pickle.dumps(Harmful(tmp_path / "done"), protocol=2))
    with pytest.raises(ValueError, match=f"{path}: is no file of tensors alone"):
        load_inception(component, "tf1")
    torch.save({"a": Harmful(tmp_path / "done")}, path)
    with pytest.raises(ValueError, match=f"{path}: is no file of tensors alone"):
        load_inception(component, "tf1")
    assert not (tmp_path / "done").exists()
    torch.save({"conv.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"are no weights of FID's Inception: Missing key"):
        load_inception(component, "tf1")
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds no tensors by name"):
        load_inception(component, "tf1")
    path.unlink()
    with pytest.raises(ValueError, match=r"has no weights-inception-\S+ or pt_inception\S+ .*https://github"):
        check_component(component)


def test_fid_and_kid_of_folders_are_torch_fidelitys(inception, tmp_path) -> None:
    real, drawn = pictures(7, 0, SIZES[:1]), pictures(6, 1, SIZES[2:3])
    folders = [str(write_pictures(tmp_path / name, found)) for name, found in (("a", drawn), ("b", real))]
    with threadpool_limits(1):  # with more, its eigenvalues take far longer
        expected = calculate_metrics(
            input1=folders[0], input2=folders[1], cuda=False, fid=True, kid=True, kid_subset_size=4, cache=False,
            verbose=False, feature_extractor_weights_path=str(weights_of(inception)), datasets_loader_workers=0,
            save_cpu_ram=True,
        )  # fmt: skip
    found, protocol = measured("fid", inception, real, drawn)
    assert found == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert protocol["definition"] == (
        "FID, net, Inception of torch-fidelity 0.4.0, resize tf1, 7 real, 6 generated"
    )
    assert METRICS["fid"].named(protocol).label == "FID (tf1, torch-fidelity 0.4.0)"
    assert protocol["inception"]["resize"] == "tf1" and len(protocol["inception"]["sha256"]) == 64
    found, _ = measured("kid", inception, real, drawn, subset_size=4)
    assert found == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)
    clean, protocol = measured("fid", inception, real, drawn, resize="clean", num_reference_pictures=5)
    assert clean > 0 and protocol["reference_pictures"] == 5
    assert METRICS["fid"].named(protocol).label == "FID (clean, torch-fidelity 0.4.0)"


def test_kid_of_three_points_and_of_no_more_than_there_are() -> None:
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert kid(x, 2 * x, 1000) == pytest.approx(3.8055556, abs=1e-6)
    assert kid(x, x, 3) == pytest.approx(-1.5555556, abs=1e-6)
    with pytest.raises(ValueError, match="2 dimensions, generated 3"):
        kid(x, np.ones((3, 3)), 2)


def dgm_evals(picture: np.ndarray) -> torch.Tensor:
    """What torchvision makes of a PIL picture."""
    resize = T.Resize((224, 224), T.InterpolationMode.BICUBIC)
    steps = [resize, T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    pixels: torch.Tensor = T.Compose(steps)(Image.fromarray(picture))
    return pixels


def test_dinov2s_features_are_those_of_transformers_on_dgm_evals_pixels(tmp_path) -> None:
    component = write_dinov2(tmp_path / "dinov2")
    found = pictures(4, 0, SIZES)
    features = load_dinov2(component).encode_images(found)
    model = Dinov2Model.from_pretrained(component.path).eval()
    with torch.no_grad():
        expected = model(torch.stack([dgm_evals(p) for p in found])).last_hidden_state[:, 0]
        size = {"height": 224, "width": 224}
        imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
        processor = BitImageProcessorPil(size=size, do_center_crop=False, resample=3, **imagenet)
        other = model(**processor([Image.fromarray(p) for p in found], return_tensors="pt")).pooler_output
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features, other, rtol=1e-4, atol=1e-4)
    real = pictures(9, 5)
    distance, protocol = measured("fd_dinov2", component, real, found)
    own = load_dinov2(component)
    expected = frechet_distance(own.encode_images(real).numpy(), own.encode_images(found).numpy())
    assert distance == pytest.approx(expected, rel=1e-3)
    assert protocol["definition"] == "FD-DINOv2, net, bicubic to 224 x 224 px, 9 real, 4 generated"


def test_positions_are_interpolated_as_in_the_authors_code_and_nearly_as_in_transformers(tmp_path) -> None:
    component = write_dinov2(tmp_path / "dinov2", image_size=518)
    model = Dinov2Model.from_pretrained(component.path).eval()
    positions = model.embeddings.position_embeddings.detach()
    grid = positions[:, 1:].reshape(1, 37, 37, 16).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic", antialias=False)
    found = load_dinov2(component).model.embeddings.position_embeddings
    assert found.shape == (1, 257, 16) and torch.equal(found[:, 0], positions[:, 0])
    torch.testing.assert_close(found[:, 1:], expected.flatten(2).transpose(1, 2))
    theirs = model.embeddings.interpolate_pos_encoding(torch.zeros(1, 257, 16), 224, 224)
    assert 0 < (found - theirs).abs().mean() < 0.25  # of unit variance


def test_a_folder_that_is_no_dinov2_is_refused(tmp_path) -> None:
    component = write_dinov2(tmp_path / "dinov2")
    config = tmp_path / "dinov2/config.json"
    text = config.read_text()
    config.write_text(text.replace('"dinov2"', '"vit"'))
    with pytest.raises(ValueError, match="model_type is 'vit', where a DINOv2's is 'dinov2'"):
        load_dinov2(component)
    config.write_text(text.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(ValueError, match=r"the weights lack encoder\.layer\.2"):
        load_dinov2(component)
    config.unlink()
    with pytest.raises(ValueError, match=r"has no config.json, .*facebook/dinov2-large"):
        check_component(component)


def test_a_plan_says_which_weights_are_missing_and_where_they_are_to_be_had(make_tiny_project) -> None:
    project = make_tiny_project("without-weights")
    project.edit("config/runs/demo.yaml", {"measure": {"fid": {"inception": "fid-inception"}}})
    command = ["snakemake", "-n", "measure"]
    output = project.run(*command, check=False)
    where = "it is to be had from https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-"
    told = "$FID_INCEPTION: the environment variable FID_INCEPTION is not set; export FID_INCEPTION=FOLDER"
    assert f"config/components.yaml: fid-inception: path: {told}; {where}" in output, output
    project.edit("config/components.yaml", {"fid-inception": {"path": "weights"}})
    (project.folder / "weights").mkdir()
    output = project.run(*command, check=False)
    assert f"config/components.yaml: fid-inception: weights has no {INCEPTION_WEIGHTS[0]}" in output, output
    assert where in output and "rule measure_metric" not in output


def test_the_nearest_picture_is_that_of_the_largest_cosine_in_blocks_too() -> None:
    rng = np.random.default_rng(0)
    real, drawn = rng.normal(size=(40, 6)), rng.normal(size=(1500, 6))
    rows, cosines = nearest(real, drawn)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (drawn, real)]
    assert np.array_equal(rows, (unit[0] @ unit[1].T).argmax(axis=1))
    assert cosines == pytest.approx((unit[0] @ unit[1].T).max(axis=1), abs=1e-9)
    assert nearest(real, np.zeros((1, 6)))[1] == [0]


def test_features_are_of_one_network() -> None:
    for names in ({}, {"clip": "a", "dinov2": "b"}):
        with pytest.raises(ValueError, match="name one component: clip, inception or dinov2"):
            METRICS["precision"].section(**names)
    assert [named.kind for named in named_components(METRICS["recall"].section(dinov2="b"))] == ["dinov2"]


def test_real_pictures_are_called_in_the_order_that_they_are_read_in(tmp_path) -> None:
    references = write_references(tmp_path)
    assert references.called(6) == ["000", "010", "020", "001", "011", "021"]
    assert len(list(references.pictures(6))) == 6
