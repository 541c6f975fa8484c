"""The recaption stage on a tiny LLaVA with random weights: which text goes to which picture."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from darkroom.captioners.llava import Decoding, Llava
from darkroom.captioners.transformers import Transformers
from darkroom.components.base import Component
from darkroom.recaption.stage import recaption_part
from darkroom.store import read_table, sha256_file, sha256_folder, write_table, write_tar
from darkroom_demo.pretrain.captioner import make_model, make_processor

SETTINGS = Transformers(
    captioner="tiny",
    captions={
        "long": {"prompt": "Describe this picture in full."},
        "short": {"prompt": "Describe this picture in one short phrase."},
    },
    max_new_tokens=6,
    batch_size=3,
    dtype="float32",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Arithmetic this small is slower on two threads, far slower where others compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def component(tmp_path_factory) -> Component:
    """A LLaVA with random weights, large enough to say something else of each picture."""
    folder = tmp_path_factory.mktemp("components") / "tiny"
    torch.manual_seed(3)
    processor = make_processor()
    model = make_model(processor)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Component(kind="captioner", path=str(folder))


def make_part(folder, order, damaged=None):
    """A part of seven pictures of one colour each, stored in `order`; the third is not kept."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 255, size=(7, 3))
    uids = [f"{i:032x}" for i in range(7)]
    members = []
    for i in order:
        picture = np.broadcast_to(colors[i].astype(np.uint8), (40 + 8 * i, 64, 3)).copy()
        picture[: 10 + i, :20] = 255 - picture[: 10 + i, :20]
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=95)
        content = buffer.getvalue()
        members.append((f"{uids[i]}.jpg", content[:200] if i == damaged else content))
    folder.mkdir(parents=True, exist_ok=True)
    spans = write_tar(folder / "part.tar", members)
    rows = [
        {
            "uid": uids[i],
            "row": 10 + i,
            "caption": f"alt-text {i}",
            "width": 64,
            "height": 40 + 8 * i,
            "offset": spans[f"{uids[i]}.jpg"][0],
            "size": spans[f"{uids[i]}.jpg"][1],
        }
        for i in order
    ]
    write_table(folder / "part.parquet", pl.DataFrame(rows), sort_by=None)
    kept = [{"uid": uids[i], "row": 10 + i, "kept": i != 2} for i in reversed(order)]
    write_table(folder / "selection.parquet", pl.DataFrame(kept), sort_by=None)
    return folder / "part.parquet", folder / "part.tar", folder / "selection.parquet"


def captioned(folder, component, order=range(7), settings=SETTINGS):
    out = folder / "captions.parquet"
    counts = recaption_part(*make_part(folder, list(order)), settings, {"tiny": component}, out)
    return out, counts


def with_captions(**captions):
    """SETTINGS with these captions in the place of, or beside, those that it has."""
    values = SETTINGS.model_dump()
    return Transformers.model_validate({**values, "captions": {**values["captions"], **captions}})


def test_each_picture_keeps_its_own_caption_whatever_the_order_in_the_tar(tmp_path, component):
    first, _ = captioned(tmp_path / "a", component)
    second, _ = captioned(tmp_path / "b", component, order=[4, 0, 6, 2, 5, 1, 3])
    table = read_table(first)
    assert table["row"].to_list() == [10, 11, 13, 14, 15, 16]
    assert table["caption_original"].to_list() == [f"alt-text {i}" for i in (0, 1, 3, 4, 5, 6)]
    assert table["caption_long"].n_unique() > 3, "the tiny model says too little to see a mix-up"
    assert sha256_file(first) == sha256_file(second)


def test_captions_are_those_of_the_picture_alone(tmp_path, component):
    # In float32 a batch of one gives what a batch of three gives: no picture leaks into another's text.
    together, _ = captioned(tmp_path / "a", component)
    alone, _ = captioned(tmp_path / "b", component, settings=SETTINGS.model_copy(update={"batch_size": 1}))
    columns = ["uid", "caption_long", "caption_short"]
    assert read_table(together, columns).equals(read_table(alone, columns))


def test_made_again_the_file_has_the_same_bytes(tmp_path, component):
    settings = SETTINGS.model_copy(update={"dtype": "bfloat16"})
    first, _ = captioned(tmp_path / "a", component, settings=settings)
    second, _ = captioned(tmp_path / "b", component, settings=settings)
    assert sha256_file(first) == sha256_file(second)


def test_the_texts_are_those_of_transformers_generate(tmp_path, component):
    captioner = Llava(component, "float32")
    prompts = [caption.prompt for caption in SETTINGS.captions.values()]
    head, tails = captioner.requests(prompts)
    rng = np.random.default_rng(1)
    pictures = [Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)) for _ in range(4)]
    ours = captioner.generate(captioner.prepare(pictures, head), [Decoding(tail, 8) for tail in tails])
    for prompt, answers in zip(prompts, ours, strict=True):
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = captioner.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = captioner.processor(images=pictures, text=[text] * 4, padding=True, return_tensors="pt")
        ids = captioner.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        theirs = captioner.processor.batch_decode(
            ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert [answer.text for answer in answers] == [text.strip() for text in theirs]


def test_a_caption_that_meets_the_limit_is_flagged_counted_and_kept(tmp_path, component):
    out, counts = captioned(tmp_path, component)
    table = read_table(out)
    cut = table.filter(pl.col("long_finish_reason") == "length")
    assert len(table) == counts["captioned"] == 6
    assert len(cut) > 0 and all("truncated" in flags for flags in cut["long_flags"].to_list())
    assert counts["long_flags"]["truncated"] == len(cut)
    assert cut["long_num_tokens"].unique().to_list() == [6]
    assert counts["long_tokens"] == table["long_num_tokens"].sum()


def test_provenance_names_the_model_as_configured_and_how_it_was_asked(tmp_path, component):
    out, _ = captioned(tmp_path, component)
    other = with_captions(long={"prompt": "Describe the image in detail."})
    asked, _ = captioned(tmp_path / "b", component, settings=other)
    row, changed = read_table(out).row(0, named=True), read_table(asked).row(0, named=True)
    assert (row["model"], row["model_path"]) == ("tiny", component.path)
    assert row["model_sha256"] == sha256_folder(component.path) and row["model_revision"] is None
    decoding = json.loads(row["decoding"])
    told = {"max_new_tokens": 6, "strip_prefixes": [], "temperature": 0.0, "top_p": 1.0}
    assert decoding["captions"] == {"long": told, "short": told} and decoding["dtype"] == "float32"
    assert row["library"].startswith("transformers ")
    assert row["long_prompt_sha256"] != changed["long_prompt_sha256"]
    assert row["short_prompt_sha256"] == changed["short_prompt_sha256"]


def test_a_damaged_picture_is_an_error_that_names_its_uid_and_nothing_is_written(tmp_path, component):
    part = make_part(tmp_path, list(range(7)), damaged=4)
    with pytest.raises(ValueError, match=f"{4:032x}"):
        recaption_part(*part, SETTINGS, {"tiny": component}, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_picture_of_other_sides_than_its_table_says_is_an_error(tmp_path, component):
    table, tar, selection = make_part(tmp_path, list(range(7)))
    wrong = read_table(table).with_columns(
        width=pl.when(pl.col("row") == 15).then(1000).otherwise(pl.col("width"))
    )
    write_table(table, wrong)
    with pytest.raises(ValueError, match=f"{5:032x} is 64x80 px"):
        recaption_part(table, tar, selection, SETTINGS, {"tiny": component}, tmp_path / "out.parquet")


def test_weights_that_give_no_numbers_are_an_error_that_names_the_uid(tmp_path, component, monkeypatch):
    original = Llava.__init__

    def broken(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.model.lm_head.weight = torch.nn.Parameter(torch.full_like(self.model.lm_head.weight, torch.nan))

    monkeypatch.setattr(Llava, "__init__", broken)
    with pytest.raises(ValueError, match=f"{0:032x}.*not finite"):
        recaption_part(
            *make_part(tmp_path, list(range(7))), SETTINGS, {"tiny": component}, tmp_path / "out.parquet"
        )


def test_no_kept_picture_gives_an_empty_table_with_all_columns(tmp_path, component):
    table, tar, selection = make_part(tmp_path / "a", list(range(7)))
    full, _ = captioned(tmp_path / "b", component)
    write_table(selection, read_table(selection).with_columns(kept=pl.lit(False)))
    counts = recaption_part(table, tar, selection, SETTINGS, {"tiny": component}, tmp_path / "out.parquet")
    empty = read_table(tmp_path / "out.parquet")
    assert counts["captioned"] == 0 and len(empty) == 0
    assert empty.schema == read_table(full).schema


def test_a_component_of_another_kind_is_refused(component):
    with pytest.raises(ValueError, match="not 'captioner'"):
        Llava(Component(kind="vae", path=component.path), "float32")


def test_a_path_may_begin_with_a_variable_of_the_environment(component, monkeypatch):
    folder = Path(component.path)
    named = Component(kind="captioner", path=f"$CAPTIONERS/{folder.name}")
    monkeypatch.setenv("CAPTIONERS", str(folder.parent))
    assert Llava(named, "float32").identity == Llava(component, "float32").identity
    monkeypatch.delenv("CAPTIONERS")
    with pytest.raises(ValueError, match="variable CAPTIONERS is not set; export CAPTIONERS=FOLDER"):
        Llava(named, "float32")


def test_a_folder_without_a_checkpoint_is_refused_by_its_path(tmp_path):
    with pytest.raises(ValueError, match="not a transformers checkpoint"):
        Llava(Component(kind="captioner", path=str(tmp_path)), "float32")
