"""Scorers on CLIP embeddings say what the CLIP says, of every stored picture, whatever the batches."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from test_components import write_clip

from darkroom import store
from darkroom.components.aesthetic_head import load_head
from darkroom.components.base import Component
from darkroom.components.clip import load_clip
from darkroom.components.files import fingerprint
from darkroom.score import score_part

CAPTIONS = ["a red circle", "two blue squares", None, "", "gone"]


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of five rows, the last without a picture, one without a caption and one with an empty one; a CLIP."""
    folder = tmp_path_factory.mktemp("part")
    write_clip(folder / "clip")
    pictures = np.random.default_rng(0).integers(0, 256, (4, 40, 48, 3), dtype=np.uint8)
    members = []
    for i, picture in enumerate(pictures):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=95)
        members.append((f"{i:032x}.jpg", file.getvalue()))
    spans = store.write_tar(folder / "part-00000.tar", members)
    rows = []
    for row, caption in enumerate(CAPTIONS):
        offset, size = spans.get(f"{row:032x}.jpg", (None, None))
        status = "ok" if size else "timeout"
        rows.append({"uid": f"{row:032x}", "row": row, "status": status, "caption": caption,
                     "offset": offset, "size": size})  # fmt: skip
    store.write_table(folder / "part-00000.parquet", pl.DataFrame(rows, infer_schema_length=None))
    return folder


def scores(
    part: Path, scorer: str, options: dict[str, Any], out: Path, **components: Component
) -> pl.DataFrame:
    known = {"clip": Component(kind="clip", path=str(part / "clip")), **components}
    paths = part / "part-00000.parquet", part / "part-00000.tar", out
    judges = score_part(scorer, options, *paths, known).judges
    assert {name: told["sha256"] for name, told in judges.items()} == {
        name: fingerprint(component) for name, component in known.items()
    }
    assert judges["clip"]["side_px"] == 32 and len(judges["clip"]["mean"]) == 3
    return store.read_table(out)


def images(part: Path) -> torch.Tensor:
    """The stored pictures' embeddings, by hand."""
    clip = load_clip(Component(kind="clip", path=str(part / "clip")))
    with store.TarReader(part / "part-00000.tar") as tar:
        rows = store.read_table(part / "part-00000.parquet").filter(status="ok")
        jpegs = [tar.read(row["offset"], row["size"]) for row in rows.iter_rows(named=True)]
    return clip.encode_images([Image.open(io.BytesIO(jpeg)) for jpeg in jpegs])


def test_clip_similarity_is_the_cosine_of_a_picture_and_its_own_caption(part: Path, tmp_path: Path) -> None:
    clip = load_clip(Component(kind="clip", path=str(part / "clip")))
    cosines = (images(part)[:2] * clip.encode_texts(CAPTIONS[:2])).sum(dim=1).tolist()
    for batch_size in (1, 64):
        options = {"clip": "clip", "batch_size": batch_size}
        found = scores(part, "clip_similarity", options, tmp_path / "out.parquet")[
            "clip_similarity"
        ].to_list()
        assert found[:2] == pytest.approx(cosines, abs=1e-4)
        # No caption, an empty one, no picture.
        assert found[2:] == [None, None, None]


def head(folder: Path, tensors: dict[str, torch.Tensor]) -> Component:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return Component(kind="aesthetic_head", path=str(folder))


@pytest.mark.parametrize("sizes", [(48, 1), (48, 16, 4, 1)])
def test_aesthetic_is_laions_linear_head_on_unit_vectors(
    part: Path, tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    """One layer, and several with dropouts between them, as in LAION's two repositories."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
    theirs = torch.nn.Sequential(*(m for layer in layers for m in (layer, torch.nn.Dropout(0.5)))).eval()
    state = theirs.state_dict() if len(layers) > 1 else layers[0].state_dict()
    names = {name: f"layers.{name}" if len(layers) > 1 else name for name in state}
    component = head(tmp_path / "head", {names[name]: tensor for name, tensor in state.items()})
    options = {"clip": "clip", "head": "head", "batch_size": 3}
    found = scores(part, "aesthetic", options, tmp_path / "out.parquet", head=component)[
        "aesthetic"
    ].to_list()
    with torch.no_grad():
        assert found[:4] == pytest.approx(theirs(images(part))[:, 0].tolist(), abs=1e-3)
    assert found[4] is None


def test_a_head_of_another_clip_and_what_is_no_head_are_refused(part: Path, tmp_path: Path) -> None:
    other = head(tmp_path / "other", {"weight": torch.zeros(1, 512), "bias": torch.zeros(1)})
    with pytest.raises(ValueError, match="takes 512 dimensions and the CLIP clip gives 48"):
        scores(part, "aesthetic", {"clip": "clip", "head": "head"}, tmp_path / "out.parquet", head=other)
    for tensors in ({"weight": torch.zeros(1, 4)}, {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}):
        with pytest.raises(
            ValueError, match="linear layers, each a weight and a bias, that end in one number"
        ):
            load_head(head(tmp_path / "none", tensors))
