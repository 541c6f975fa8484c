"""The sections `rewrite` and `rewrite_gates` of a dataset: what is refused, and what a dataset without them is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_pages import DOCS, ROOT, blocks

from darkroom.config import ConfigError, load_dataset, load_project
from darkroom.config.dataset import Dataset
from darkroom.stages import STAGES, above, members, stage_settings, upstream_paths

SERVER = {"kind": "server", "url": "https://api.example/v1", "model": "m"}
BRIEF = {"brief": {"prompt": "Shorten: {long}", "max_new_tokens": 30}}
FLAGS = {"kind": "flags", "none_of": ["empty"]}


def body(**values: Any) -> dict[str, Any]:
    long = {"captioner": "c", "captions": {"long": {"prompt": "l"}}}
    source = {"kind": "pictures", "folder": "somewhere"}
    return {"description": "d", "source": source, "recaption": long, **values}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"rewrite": {**SERVER, "captions": {"brief": {"prompt": "Shorten: {lnog}"}}}},
            "rewrite.captions.brief.prompt: pictures have no caption 'lnog'; did you mean 'long'?; known:"
            " original, long",
        ),
        (
            {"rewrite": {**SERVER, "captions": {"brief": {"prompt": "Shorten it"}}}},
            "captions.brief.prompt: has no place for a caption",
        ),
        (
            {"rewrite": {**SERVER, "captions": {"brief": {"prompt": "Shorten {long"}}}},
            "captions.brief.prompt: '{' stands alone; write {{",
        ),
        (
            {"rewrite": {**SERVER, "captions": {"brief": {"prompt": "{0.__class__}"}}}},
            "rewrite.captions.brief.prompt: pictures have no caption '0.__class__'; known: original, long",
        ),
        (
            {"rewrite": {**SERVER, "captions": {"long": {"prompt": "Shorten: {long}"}}}},
            "rewrite.captions.long: pictures have a caption of this name already",
        ),
        (
            {"rewrite": {**SERVER, "captions": {**BRIEF, "more": {"prompt": "{brief}"}}}},
            "rewrite.captions.more.prompt: pictures have no caption 'brief'",
        ),
        ({"rewrite": {**SERVER, "captions": {"original": {"prompt": "{long}"}}}}, "the alt-text's name"),
        ({"rewrite": SERVER}, "rewrite.captions: is missing"),
        ({"rewrite": {"captions": BRIEF}}, "rewrite"),
        ({"rewrite": {**SERVER, "captions": BRIEF, "detail": "low"}}, "rewrite.detail: unknown key"),
        (
            {"rewrite": {"kind": "transformers", "captioner": "c", "captions": BRIEF}},
            "rewrite.captioner: unknown key",
        ),
        ({"rewrite_gates": {"gates": [FLAGS]}}, "rewrite_gates: no captioner writes captions; give rewrite"),
        (
            {
                "rewrite": {**SERVER, "captions": BRIEF},
                "rewrite_gates": {"gates": [{"kind": "similarity", "clip": "c", "min": 0.2}]},
            },
            "similarity looks at pictures, and rewritten captions are judged without; there are flags, alt_text",
        ),
        (
            {
                "rewrite": {**SERVER, "captions": BRIEF},
                "rewrite_gates": {"gates": [{**FLAGS, "captions": ["long"]}]},
            },
            "rewrite_gates.gates: flags looks at 'long', and rewrite.captions has brief",
        ),
    ],
)
def test_what_cannot_be_rewritten_is_refused_by_the_name_of_its_key(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    path = tmp_path / "config/datasets/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(body(**values)))
    with pytest.raises(ConfigError) as told:
        load_dataset("mine", tmp_path)
    assert str(path) in str(told.value) and message in str(told.value)


def test_rewritten_captions_come_after_the_others_and_may_be_of_alt_texts_alone() -> None:
    rewrite = {**SERVER, "captions": {**BRIEF, "all": {"prompt": "{long} {original}"}}}
    assert Dataset.model_validate(body(rewrite=rewrite)).caption_names == ("original", "long", "all", "brief")
    tags = {**SERVER, "captions": {"tags": {"prompt": "Tags of {longest}; {original}"}}}
    kept = Dataset.model_validate(body(recaption=None, own_captions=["longest"], rewrite=tags))
    assert kept.caption_names == ("original", "longest", "tags")


def test_a_dataset_without_it_has_no_such_stage_and_the_settings_that_it_had() -> None:
    dataset = Dataset.model_validate(body())
    assert not {"rewrite", "rewrite_gates"} & dataset.model_dump(mode="json").keys()
    project = load_project("demo", ROOT)
    assert members(project, "rewrite") == ()
    for stage in STAGES:
        assert "rewrite" not in upstream_paths(project, stage)
        if members(project, stage):
            assert "rewrite" not in stage_settings(project, stage)


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ({}, ("filter",)),
        ({"caption_gates": {"gates": [FLAGS], "otherwise": "keep"}}, ("filter",)),
        ({"caption_gates": {"gates": [FLAGS]}}, ("filter", "recaption")),
        (
            {"rewrite": {**SERVER, "captions": BRIEF}, "rewrite_gates": {"gates": [FLAGS]}},
            ("filter", "rewrite"),
        ),
        (
            {
                "rewrite": {**SERVER, "captions": BRIEF},
                "rewrite_gates": {"gates": [FLAGS], "otherwise": "fallback", "fallbacks": [SERVER]},
                "caption_gates": {"gates": [FLAGS]},
            },
            ("filter", "recaption", "rewrite"),
        ),
    ],
)
def test_buckets_are_made_of_captions_only_where_gates_drop_pictures_for_them(
    values: dict[str, Any], read: tuple[str, ...]
) -> None:
    demo = load_project("demo", ROOT)
    project = replace(demo, datasets={"demo": Dataset.model_validate(body(**values))})
    assert above(project, "bucket") == read and tuple(upstream_paths(project, "bucket")) == read
    with_rewrite = ("rewrite",) if "rewrite" in values else ()
    assert above(project, "cache") == ("recaption", *with_rewrite, "bucket")


def test_the_examples_of_the_docs_rewrite() -> None:
    examples = [yaml.safe_load("\n".join(block)) for block in blocks("yaml", DOCS / "rewrite.md")]
    kinds = [example["rewrite"]["kind"] for example in examples if "rewrite" in example]
    assert kinds == ["transformers", "server"]
