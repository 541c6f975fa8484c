"""The scorers `watermark` and `unsafe` say what an image classifier of transformers says of named classes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_scorers_clip import part  # noqa: F401 - a fixture
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

from darkroom import store
from darkroom.components.base import Component
from darkroom.components.check import check_component
from darkroom.components.files import fingerprint
from darkroom.components.image_classifier import load_image_classifier
from darkroom.score import score_part

TINY = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
LABELS = ("clean", "marked", "stamped")


def write_classifier(folder: Path, **more: Any) -> Component:
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    config = ViTConfig(**TINY, id2label=names, label2id={v: k for k, v in names.items()}, **more)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return Component(kind="image_classifier", path=str(folder))


def scores(
    part: Path,
    scorer: str,
    component: Component,
    out: Path,
    **options: Any,
) -> list[float | None]:
    tar, table = part / "part-00000.tar", part / "part-00000.parquet"
    known, options = {"judge": component}, {"model": "judge", **options}
    judge = score_part(scorer, options, table, tar, out, known).judges["judge"]
    assert judge["classes"] == list(LABELS) and judge["sha256"] == fingerprint(component)
    assert judge["pictures"]["size"] == {"height": 32, "width": 32}
    return store.read_table(out)[scorer].to_list()


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
@pytest.mark.parametrize("scorer", ["watermark", "unsafe"])
def test_a_score_is_that_of_the_plain_model_whatever_the_batches(
    part: Path,
    tmp_path: Path,
    scorer: str,
    problem_type: str | None,
) -> None:
    component = write_classifier(tmp_path / "judge", problem_type=problem_type)
    model = ViTForImageClassification.from_pretrained(tmp_path / "judge").eval()
    processor = ViTImageProcessor.from_pretrained(tmp_path / "judge")
    expected = []
    with store.TarReader(part / "part-00000.tar") as tar, torch.no_grad():
        for row in store.read_table(part / "part-00000.parquet").filter(status="ok").iter_rows(named=True):
            (tmp_path / "one.jpg").write_bytes(tar.read(row["offset"], row["size"]))
            pixels = processor(images=Image.open(tmp_path / "one.jpg").convert("RGB"), return_tensors="pt")
            logits = model(**pixels).logits[0]
            one, two = (logits.sigmoid() if problem_type else logits.softmax(0))[[2, 1]].tolist()
            expected.append(max(one, two) if problem_type else one + two)
    for batch_size in (1, 3, 64):
        found = scores(part, scorer, component, tmp_path / "out.parquet", classes=["stamped", "marked"],
                       batch_size=batch_size)  # fmt: skip
        assert found[:4] == pytest.approx(expected, abs=2e-4)
        assert found[4] is None


def test_a_class_that_the_model_lacks_is_named_with_those_it_has(part: Path, tmp_path: Path) -> None:
    component = write_classifier(tmp_path / "judge")
    with pytest.raises(ValueError, match=r"no class 'nsfw'; it has clean, marked, stamped"):
        scores(part, "unsafe", component, tmp_path / "out.parquet", classes=["nsfw"])


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    """transformers would give it a random one, and score with that."""
    component = write_classifier(tmp_path / "judge")
    check_component(component)
    ViTModel(ViTConfig(**TINY)).save_pretrained(tmp_path / "judge")
    with pytest.raises(ValueError, match="architectures is ViTModel"):
        load_image_classifier(component)
    config = json.loads((tmp_path / "judge/config.json").read_text())
    (tmp_path / "judge/config.json").write_text(
        json.dumps({**config, "architectures": ["ViTForImageClassification"]})
    )
    with pytest.raises(ValueError, match="the weights lack classifier"):
        load_image_classifier(component)
    (tmp_path / "judge/preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"preprocessor_config\.json"):
        check_component(component)
