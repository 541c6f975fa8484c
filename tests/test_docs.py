"""The documentation keeps its word: commands run, examples are valid, links lead somewhere."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import TinyProject
from doc_commands import COMMANDS, RUN
from doc_pages import DOCS, INDEXED, PAGES, ROOT, blocks, commands
from tiny_detectors import write_mask2former

from darkroom.autoencoder.project import load_autoencoder
from darkroom.benchmarks.coco import CLASSES
from darkroom.config import load_dataset, load_project, reference
from darkroom.config.load import merge
from darkroom.stages import STAGES

RUN_BLOCKS = dict.fromkeys(tuple(block) for block in commands() if any(COMMANDS.get(c) == RUN for c in block))


# Commands


def test_every_command_of_the_docs_is_exercised_and_no_other_is_listed() -> None:
    documented = {command for block in commands() for command in block}
    assert documented - set(COMMANDS) == set(), "say in COMMANDS how these are exercised"
    assert set(COMMANDS) - documented == set(), "these are no longer in the docs"


def test_commands_stand_in_console_blocks_behind_a_prompt() -> None:
    for block in blocks("console"):
        assert all(line.startswith("$ ") for line in block), block
    assert not [language for language in ("sh", "bash", "shell") for _ in blocks(language)]


def test_the_tests_that_exercise_commands_exist() -> None:
    for command, how in COMMANDS.items():
        if how != RUN:
            file, _, name = how.partition("::")
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), (command, how)


@pytest.fixture(scope="module")
def copy_of_finished(finished_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    copy = finished_project.copy(tmp_path_factory.mktemp("docs") / "copy")
    return copy


def rules_run_since(begin: float, project: TinyProject) -> set[str]:
    """The rules that wrote an output after `begin`, as Snakemake's own records tell."""
    records = [
        json.loads(path.read_text())
        for path in (project.folder / ".snakemake/metadata").rglob("*")
        if path.is_file()
    ]
    return {record["rule"] for record in records if (record.get("endtime") or 0) >= begin}


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN_BLOCKS, ids="; ".join)
def test_a_block_of_commands_runs(block: tuple[str, ...], copy_of_finished: TinyProject) -> None:
    begin = time.time()
    # What a run records in DVC is tested elsewhere; left out here, it saves seconds a command.
    copy_of_finished.run("bash", "-ec", "export DVC_STAGE=docs\n" + "\n".join(block))
    assert set(re.findall(r"-R (\w+)", "\n".join(block))) <= rules_run_since(begin, copy_of_finished)


@pytest.mark.slow
def test_a_published_result_is_checked_in_a_clone_without_its_data(
    finished_project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@example.org")
    check, pull, publish, *_ = commands(DOCS / "reproduce.md")
    project = finished_project.copy(tmp_path / "publisher")
    project.run("bash", "-ec", "\n".join(publish).replace("FOLDER", str(tmp_path / "published")))
    project.run("git", "clone", "--quiet", ".", str(tmp_path / "reader"))
    project.folder = tmp_path / "reader"
    output = project.run("bash", "-ec", "\n".join(check))
    assert "Data and pipelines are up to date" in output and "demo: nothing is wrong" in output
    (line,) = next(iter(blocks("text", DOCS / "reproduce.md")))
    assert line in output
    output = project.run("bash", "-ec", "\n".join(pull))
    assert "train      ok: 2 of" in output and "evaluate   ok:" in output and "overall" in output
    project.edit("config/runs/demo.yaml", {"train": {"learning_rate": 0.0005}})
    assert "train-demo" in project.run("dvc", "repro", "--allow-missing", "--dry", check=False)
    output = project.run("darkroom", "verify", "demo", check=False)
    assert "train/manifest.json: was made with other settings than the configuration's" in output


def test_the_environment_of_the_docs_is_the_one_that_make_and_the_tests_use() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "VENV := .venv\n" in makefile and "SNAKEMAKE_PROFILE ?= profiles/local\n" in makefile
    project = TinyProject.__new__(TinyProject)
    project.folder = ROOT
    assert project.environment["SNAKEMAKE_PROFILE"] == "profiles/local"
    assert (ROOT / "profiles/local/profile.yaml").exists()


@pytest.mark.parametrize(
    ("target", "recipe"),
    [
        ("demo", "snakemake"),
        ("schema", "darkroom schema > config/schema.json"),
        ("test-real", " --dist loadfile --no-loadscope-reorder -m real tests/test_"),
        ("test-interop", "pytest -rP -m interop tests/test_interop.py"),
        ("test-slurm", "pytest -n 3 --dist loadfile --no-loadscope-reorder -m slurm"),
    ],
)
def test_make_runs_what_the_tests_run(target: str, recipe: str) -> None:
    command = ["make", "--dry-run", "--assume-old=.venv/.ready", target]
    assert recipe in subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_the_demo_world_can_be_looked_at() -> None:
    command = [sys.executable, "-m", "darkroom.cli", "demo", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert address, line
            with urllib.request.urlopen(address[0], timeout=60) as page:
                assert b"The demo world" in page.read()
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode == 0


def test_components_are_trained_into_the_folder_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    import darkroom_demo.pretrain as pretrain
    from darkroom.cli import app

    asked = []
    monkeypatch.setattr(pretrain, "train_all", lambda out, **options: asked.append((out, options)))
    result = CliRunner().invoke(app, ["demo", "train-components", "--out", str(tmp_path), "--only", "vae"])
    assert result.exit_code == 0, result.output
    assert asked == [(tmp_path, {"only": "vae", "num_threads": 1})]


# Examples of configuration


@pytest.fixture
def example_files() -> dict[str, str]:
    """Path -> text of the YAML blocks that begin with a path; blocks of one file add up."""
    found: dict[str, str] = {}
    for block in blocks("yaml"):
        assert re.fullmatch(r"# config/\S+\.yaml", block[0]), block[0]
        name, text = block[0].removeprefix("# "), "\n".join(block) + "\n"
        found[name] = found.get(name, "") + text
    return found


def write_examples(folder: Path, files: dict[str, str]) -> list[str]:
    """Write them below `folder`, added to what is there; the names of the runs among them."""
    for name, text in files.items():
        path = folder / name
        old = yaml.safe_load(path.read_text()) if path.exists() else {}
        path.write_text(yaml.safe_dump(merge(old, yaml.safe_load(text)), sort_keys=False))
    return [Path(name).stem for name in files if name.startswith("config/runs/")]


def test_the_examples_are_valid_configuration(tmp_path: Path, example_files: dict[str, str]) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    runs = write_examples(tmp_path, example_files)
    assert {name for name in runs if load_project(name, tmp_path)} == {
        *("longer", "cats", "terminal", "full-size", "sd3-longer", "sd14-lora", "flux-lora"),
        *("own-prompts", "no-kernel", "three-captions", "tagged", "watched", "judged", "averaged"),
        *("photographs", "signs", "questions", "preferred"),
    }
    assert load_project("longer", tmp_path).cache == load_project("demo", tmp_path).cache
    autoencoders = [name for name in example_files if name.startswith("config/autoencoders/")]
    assert all(load_autoencoder(Path(name).stem, tmp_path) for name in autoencoders) and autoencoders
    datasets = [name for name in example_files if name.startswith("config/datasets/") and "NAME" not in name]
    assert all(load_dataset(Path(name).stem, tmp_path) for name in datasets) and len(datasets) >= 4


@pytest.mark.slow
def test_snakemake_plans_the_runs_of_the_examples(
    make_tiny_project: Callable[[str], TinyProject], example_files: dict[str, str]
) -> None:
    project = make_tiny_project("examples")
    (project.folder / "data").mkdir()
    urls = pl.DataFrame({"URL": ["http://images.example/1.jpg"], "TEXT": ["a cat"]})
    urls.write_parquet(project.folder / "data/cats.parquet")
    (project.folder / "data/prompts.txt").write_text("a cat\na black cat\n")
    (questions,) = blocks("json", DOCS / "measure.md")
    (project.folder / "data/questions.jsonl").write_text("\n".join(questions))
    runs = write_examples(project.folder, example_files)
    told = project.run("snakemake", "-n", "--config", "run=cats", check=False)
    assert re.search(r"config/components.yaml: \w+: no folder .* `revision` should be a commit", told), told
    components = project.read("config/components.yaml")
    demo = {
        component["kind"]: component["path"]
        for component in components.values()
        if "_demo" in component["path"]
    }
    # As those of SD3: the sizes in the examples fit them.
    vae = {"block_out_channels": [128, 256, 512, 512], "latent_channels": 16}
    weights = "diffusion_pytorch_model.safetensors"
    for kind, settings in (("model", {}), ("vae", vae)):
        demo[kind] = f"data/{kind}"
        (project.folder / demo[kind]).mkdir()
        (project.folder / demo[kind] / "config.json").write_text(json.dumps(settings))
        shutil.copy(
            ROOT / "src/darkroom_demo/components/vae" / weights, project.folder / demo[kind] / weights
        )
    rewards = project.folder / "data/image-reward"
    rewards.mkdir()
    shutil.copy(ROOT / "src/darkroom_demo/components/vae" / weights, rewards / "model.safetensors")
    (rewards / "med_config.json").write_text("{}")
    (rewards / "vocab.txt").touch()
    components["image-reward"]["path"] = "data/image-reward"
    demo["object_detector"] = "data/detector"
    write_mask2former(project.folder / "data/detector", CLASSES)
    for component in components.values():
        if not (component["path"].startswith("$") or (project.folder / component["path"]).is_dir()):
            for key in ("revision", "subfolder"):
                component.pop(key, None)
            component["path"] = demo[component["kind"]]
    project.write("config/components.yaml", components)
    for name in runs:
        assert {"download_part", "cache_part", "train_run"} <= project.planned("--config", f"run={name}")


# Links, options, stages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            aim = (page.parent / path).resolve() if path else page
            assert aim.exists(), f"{page.name}: {target}"
            titles = re.findall(r"^#+ (.*)$", aim.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert not anchor or anchor in slugs, f"{page.name}: {target}"


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = [page.relative_to(DOCS).as_posix() for page in INDEXED]
    assert all(f"({page})" in index for page in pages if page != "README.md")


def test_the_option_tables_are_in_step_with_the_models() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    again = "run: python -m darkroom.config.reference docs/configuration.md"
    assert reference.insert_reference(page) == page, again


def test_the_option_tables_are_written_again(tmp_path: Path) -> None:
    page = tmp_path / "configuration.md"
    page.write_text(f"# Before\n{reference.BEGIN}\nold\n{reference.END}\nafter\n")
    subprocess.run([sys.executable, "-m", "darkroom.config.reference", str(page)], check=True)
    text = page.read_text()
    assert reference.reference_markdown() in text and "\nold\n" not in text
    assert text.startswith("# Before\n") and text.endswith(f"{reference.END}\nafter\n")
    with pytest.raises(ValueError, match="lacks a line"):
        reference.insert_reference("no markers")


def test_every_option_has_a_meaning_and_none_has_two() -> None:
    assert not [name for name, field in reference.options() if not reference.meaning(name, field)]
    described = {name for name, field in reference.options() if field.description}
    undescribed = {name for name, field in reference.options() if not field.description}
    assert set(reference.MEANINGS) <= undescribed, set(reference.MEANINGS) & described


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_page_that_tells_how_to_run_it_alone(stage: str) -> None:
    text = (DOCS / f"{stage}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {stage}\n")
    sections = "## When the job fails", "## Only this stage", "## Limits"
    for wanted in ("**In:**", "**Out", "**Counted:**", *sections):
        assert wanted in text, wanted
    assert [f"snakemake {stage}"] in [block[:1] for block in commands(DOCS / f"{stage}.md")]
