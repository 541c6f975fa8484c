"""Configuration files as people leave them: mistakes of YAML, types and names, told with file and place."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.utils.serialize import parse_yaml

from darkroom.config import ConfigError, load_project
from darkroom.config.yaml_files import YamlError, read_yaml

ROOT = Path(__file__).parents[1]
RUN, DATASET, COMPONENTS = "config/runs/demo.yaml", "config/datasets/demo.yaml", "config/components.yaml"

Edit = Callable[[bytes], bytes]


def with_line(text: str) -> Edit:
    return lambda before: before + text.encode() + b"\n"


def replaced(old: str, new: str) -> Edit:
    def edit(before: bytes) -> bytes:
        assert old.encode() in before, f"{old!r} is not in the file any more"
        return before.replace(old.encode(), new.encode(), 1)

    return edit


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's configuration, to change."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "edit", "told"),
    [
        (RUN, with_line("\tseed: 1"), "not valid YAML: (.*\n)*.*cannot start any token\n.*demo.yaml\", line "),
        (RUN, with_line("seed: 1"), "not valid YAML: key 'seed' stands twice\n.*demo.yaml\", line "),
        (RUN, replaced("  num_steps: ", "  num_steps:"), "not valid YAML: "),
        (RUN, replaced("  num_steps: ", " num_steps: "), "not valid YAML: "),
        (RUN, with_line("---\nseed: 1"), "not valid YAML: expected a single document"),
        (RUN, replaced("seed: 0", "seed: !!python/name:os.system"), "not valid YAML: could not determine"),
        (RUN, lambda before: before + b"# caf\xe9\n", "not UTF-8 text"),
        (RUN, lambda _: b"- a\n", "holds a list, not a mapping of keys to values"),
        (RUN, lambda _: b"", "holds nothing, not a mapping"),
        (RUN, with_line("1: 2"), "1: keys should be strings"),
        (RUN, replaced("num_steps: 1200", "num_steps: true"), "train: num_steps is true; it should be a number"),
        (RUN, replaced("learning_rate: 0.002", "learning_rate: yes"), "train.learning_rate: .*it is 'yes'"),
        (RUN, replaced("learning_rate: 0.002", "learning_rate: 2,5"), "train.learning_rate: .*it is '2,5'"),
        (RUN, replaced("num_steps: 1200", "num_steps: 1:30"), "train.num_steps: .*it is '1:30'"),
        (RUN, replaced("train:", "trian:"), "trian: unknown key; did you mean 'train'"),
        (RUN, replaced("{long: ", "{logn: "), r"train\.caption_choice\.logn: .* did you mean 'long'\?; known: "),
        (RUN, replaced("{long: 0.4", "{long: 0.3"), r"train\.caption_choice: long \+ short is 0.9; it must be 1"),
        (RUN, replaced("{long: 0.4", "{long: yes"), r"train\.caption_choice\.long: .*valid number"),
        (RUN, replaced("{long: 0.4", "{long: true"), r"train\.caption_choice: long is true; it should be a num"),
        (DATASET, replaced(" long: {", " original: {"), "recaption.captions: 'original' is the alt-text's name"),
        (DATASET, replaced(" long: {", " Long: {"), "recaption.captions: 'Long' cannot be the name"),
        (DATASET, replaced(" long: {", " caption_a: {"), "recaption.captions: 'caption_a' cannot be the name"),
        (DATASET, replaced(" long: {prompt", " long: {promt"), "recaption.captions.long.promt: .*'prompt'"),
        (RUN, replaced("kind: demo", "kind: dmeo"), "draw.prompts.kind: no kind 'dmeo'; did you mean 'demo'"),
        (RUN, replaced("dataset: demo", "dataset: Demo"), "dataset: no dataset 'Demo' in .*did you mean 'demo'"),
        (DATASET, replaced("kind: demo", "kind: dmeo"), "source.kind: no kind 'dmeo'; did you mean 'demo'"),
        (DATASET, replaced("rows_per_part", "row_per_part"), "row_per_part: .*did you mean 'rows_per_part'"),
        (DATASET, replaced("max_pixels", "max_pixel"), "download.max_pixel: .*did you mean 'max_pixels'"),
        (COMPONENTS, replaced("path: src", "pth: src"), "demo-vae.pth: unknown key; did you mean 'path'"),
        (COMPONENTS, replaced("kind: clip", "kind: clp"), r"demo-clip\.kind: input should be .*it is 'clp'"),
        (COMPONENTS, with_line("demo-vae: {kind: vae, path: x}"), "not valid YAML: key 'demo-vae' stands twice"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_file_and_its_place(
    project: Path, file: str, edit: Edit, told: str
) -> None:
    path = project / file
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(ConfigError, match=f"^(.*\n)*{file}: {told}"):
        load_project("demo")


@pytest.mark.parametrize(
    "edit",
    [
        lambda before: b"\xef\xbb\xbf" + before,
        lambda before: before.replace(b"\n", b"\r\n"),
        replaced("seed: 0", "<<: {seed: 0}"),
    ],
    ids=["byte order mark", "lines of Windows", "merged keys"],
)
def test_what_editors_and_yaml_allow_is_read(project: Path, edit: Edit) -> None:
    before = load_project("demo")
    path = project / RUN
    path.write_bytes(edit(path.read_bytes()))
    assert load_project("demo") == before


def test_a_file_that_may_not_be_read_is_named(project: Path) -> None:
    shutil.move(project / RUN, project / "kept")
    (project / RUN).mkdir()
    with pytest.raises(ConfigError, match=f"{RUN}: cannot be read"):
        load_project("demo")


def test_values_are_those_that_dvc_records(tmp_path: Path) -> None:
    values = (
        "1e-4 2e3 1e3 012 1_000 0x1F 0o17 no yes on off true False null ~ .inf -.inf 1.5 +7 1:30 '1' .5 5. e3"
    )
    text = "".join(f"k{i}: {value}\n" for i, value in enumerate(values.split())) + "empty:\n"
    (tmp_path / "a.yaml").write_text(text)
    ours, theirs = read_yaml(tmp_path / "a.yaml"), parse_yaml(text, "a.yaml")
    assert ours == theirs
    assert [type(ours[key]) for key in ours] == [type(theirs[key]) for key in theirs]
    assert ours["k0"] == 1e-4 and ours["k3"] == 12 and ours["k7"] == "no"


def test_keys_that_a_merge_brings_in_may_be_replaced_and_others_stand_once(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("x: &a {p: 1, q: 2}\ny:\n  <<: *a\n  q: 3\n")
    assert read_yaml(path)["y"] == {"p": 1, "q": 3}
    path.write_text("x: {p: 1, p: 2}\n")
    with pytest.raises(YamlError, match="key 'p' stands twice"):
        read_yaml(path)


def test_a_metric_that_a_run_does_not_measure_is_none_of_its_settings(project: Path) -> None:
    """Or a metric that a later version has would make every earlier result stale."""
    run = load_project("demo").run
    assert set(run.measure.model_dump(mode="json")) == set(run.measure.chosen)


def test_a_run_shows_the_captions_that_its_dataset_has(project: Path) -> None:
    path = project / DATASET
    path.write_text(path.read_text().replace(" long: {", " tags: {"))
    known = "caption_choice.long: the dataset demo has no caption of this name; known: original, short, tags$"
    with pytest.raises(ConfigError, match=f"{RUN}: train.{known}"):
        load_project("demo")
    path.write_text(path.read_text() + "extends: other\n")
    (project / "config/datasets/other.yaml").write_text(
        "recaption: {captions: {long: {prompt: l}, tags: {prompt: t}}}"
    )
    assert load_project("demo").dataset.caption_names == ("original", "long", "short", "tags")
    path.write_text(path.read_text().replace(" short: {", " short: null # {"))
    with pytest.raises(ConfigError, match=r"caption_choice.short: .*; known: original, long, tags$"):
        load_project("demo")
    (project / RUN).write_text((project / RUN).read_text().replace("{long: 0.4, short: 0.6}", "null"))
    assert load_project("demo").run.train.caption_choice is None
