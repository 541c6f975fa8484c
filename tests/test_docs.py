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
from doc_pages import DOCS, INDEXED, PAGES, ROOT, blocks, commands

from darkroom.config import load_dataset, load_project, reference
from darkroom.config.load import merge
from darkroom.stages import STAGES

CHAIN, HERE = "test_chain.py::test_", "test_docs.py::test_"
SET_UP = f"{HERE}the_environment_of_the_docs_is_the_one_that_make_and_the_tests_use"
MAKE = f"{HERE}make_runs_what_the_tests_run"
PUBLISH = "test_publish.py::test_publishing_a_finished_run_leaves_a_clone_that_anybody_can_check"
PUBLISHED = f"{HERE}a_published_result_is_checked_in_a_clone_without_its_data"
MEASURE = "test_measure_command.py::test_the_commands_of_the_docs_judge_what_darkroom_sample_drew"
AUDIT = "test_audit.py::test_the_commands_of_the_docs_show_scores_draw_a_sample_and_judge_its_labels"
CLUSTER = "test_cluster_chain.py::test_"
ADOPT = "test_adopt.py::test_who_adopts_a_published_result_reruns_only_what_they_change"
EXPORT = "test_format_lora_kohya.py::test_the_commands_of_the_docs_export_a_run"
EXAMPLES = f"{HERE}snakemake_plans_the_runs_of_the_examples"

# Every command of README.md and docs/ -> the test that exercises it, or RUN: this file runs it, with the
# others of its block, in a copy of the finished tiny project.
RUN = "run"
COMMANDS = {
    "make demo": MAKE,
    "make test": MAKE,
    "make test-slurm": MAKE,
    "make schema": MAKE,
    "make clean-results": "test_setup.py::test_clean_results_asks_on_a_terminal",
    "source .venv/bin/activate": SET_UP,
    "export SNAKEMAKE_PROFILE=profiles/local": SET_UP,
    "export SNAKEMAKE_PROFILE=profiles/slurm": "test_profiles.py::test_dvc_submits_the_same_jobs",
    "snakemake --profile slurm": f"{CLUSTER}every_stage_was_a_job_and_training_had_two_nodes",
    "darkroom cluster check": "test_cluster_check_slurm.py::test_the_profile_of_the_repository_fits_the_"
    "cluster_of_the_tests",
    "snakemake -n train --printshellcmds -R train_run": "test_adopt.py::test_torchrun_trains_with_"
    "the_command_of_the_rule",
    "dvc repro train-demo": "test_profiles.py::test_dvc_submits_the_same_jobs",
    "cp --recursive --no-clobber PUBLISHER/results .": ADOPT,
    "darkroom adopt demo": ADOPT,
    "darkroom publish --write": "test_dvc.py::test_publish_says_where_dvc_yaml_is_behind_and_writes_it",
    "dvc gc --workspace --force": "test_dvc_lock.py::test_gc_frees_what_is_no_longer_recorded_and_keeps_"
    "the_results",
    "snakemake -n": f"{CHAIN}afterwards_snakemake_and_dvc_agree_that_nothing_is_to_do",
    "snakemake -n filter --config run=demo": "test_logger_chain.py::test_a_target_after_config_is_told_where_it_"
    "belongs",
    "snakemake -n --config run=longer": EXAMPLES,
    "snakemake -n --config run=cats": EXAMPLES,
    "snakemake download": RUN,
    "rm results/datasets/demo/download/part-00000.*": RUN,
    "darkroom retry demo": "test_chain_retry.py::test_a_round_fetches_what_failed_and_makes_nothing_again",
    "darkroom trace URL": "test_withdraw.py::test_a_picture_is_traced_by_its_url_its_uid_and_its_bytes_as_fetched_"
    "and_as_stored",
    "darkroom withdraw URL": "test_withdraw.py::test_a_run_after_a_withdrawal_is_byte_for_byte_one_that_never_had_"
    "the_url",
    "snakemake filter": f"{CHAIN}one_stage_reruns_by_name",
    "snakemake filter -R filter_part": RUN,
    "snakemake score": RUN,
    "snakemake score -R score_part score_dataset": RUN,
    "snakemake recaption": RUN,
    "snakemake recaption -R recaption_part": RUN,
    "rm results/datasets/demo/recaption/part-00001.*": RUN,
    "snakemake bucket": RUN,
    "snakemake bucket -R bucket_part": RUN,
    "snakemake cache": RUN,
    "snakemake cache -R cache_part": RUN,
    "snakemake train": f"{CHAIN}a_training_option_reruns_train_and_what_follows_alone",
    "snakemake train -R train_run --set-resources train_run:mpi=torchrun train_run:tasks=2": (
        "test_train_launch.py::test_the_train_rule_runs_on_two_ranks_under_torchrun"
    ),
    "rm -r checkpoints/demo": RUN,
    "snakemake train -R train_run": RUN,
    "snakemake -n --config run=sd3-scratch-tiny,sd3-scratch-512-tiny": RUN,
    "snakemake draw": RUN,
    "snakemake draw -R draw_chunk": RUN,
    "snakemake measure": RUN,
    "snakemake measure -R measure_metric": RUN,
    "snakemake evaluate": RUN,
    "snakemake evaluate -R evaluate_run": RUN,
    "darkroom measure circles/model --metrics clip_score,frechet_clip_distance --prompts circles/pictures.csv"
    " --reference src/darkroom_demo/pictures --component clip=demo-clip": MEASURE,
    "darkroom measure FOLDER --metrics fid,kid --reference REAL --resize clean --component inception=WEIGHTS"
    " --out measured": MEASURE,
    "darkroom audit demo": AUDIT,
    "darkroom audit demo --column pwatermark --sample 200": AUDIT,
    "darkroom audit demo --column pwatermark --labels labels.csv --precision 0.95": AUDIT,
    "darkroom export sd14-lora --format single_file": EXPORT,
    "darkroom export sd14-lora --format lora_kohya --dtype float32 --out circles.safetensors": EXPORT,
    "darkroom compare demo longer": "test_evaluate_stage.py::test_two_runs_are_compared_by_prompt_and_unequal_"
    "protocols_are_refused",
    "snakemake report": RUN,
    "snakemake report -R report_run": RUN,
    "dvc status": f"{CHAIN}afterwards_snakemake_and_dvc_agree_that_nothing_is_to_do",
    "dvc repro": f"{CHAIN}afterwards_snakemake_and_dvc_agree_that_nothing_is_to_do",
    "dvc repro filter-demo": f"{CHAIN}a_filter_threshold_reruns_the_selection_and_what_follows_but_no_download"
    "_and_no_scoring",
    "dvc repro --allow-missing --dry": PUBLISHED,
    "dvc pull": PUBLISHED,
    "darkroom verify demo": PUBLISHED,
    "dvc metrics show": PUBLISHED,
    "dvc remote add --default published FOLDER": PUBLISHED,
    "git add dvc.lock .dvc/config": PUBLISHED,
    "git add published": PUBLISHED,
    "darkroom compare demo": "test_agreement.py::test_the_command_ends_with_0_or_1_and_says_what_is_missing",
    "darkroom publish demo": PUBLISH,
    "darkroom publish demo --sign ~/.ssh/id_ed25519": PUBLISH,
    "darkroom verify demo --signers FILE": PUBLISH,
    "darkroom reproduce demo": "test_publish.py::test_a_run_that_is_made_again_is_compared_metric_by_metric_and_"
    "leaves_what_was_published",
    'git commit -m "Results of demo"': PUBLISHED,
    "dvc push": PUBLISHED,
    "git diff --exit-code dvc.lock": f"{CHAIN}a_second_run_from_scratch_gives_the_same_bytes",
    "python -m darkroom.config.reference docs/configuration.md": f"{HERE}the_option_tables_are_written_again",
    'darkroom sample demo "a photo of a red circle" "a photo of two blue squares" --seed 7 --seed -1'
    " --out circles": RUN,
    'darkroom sample demo "a photo of a red circle" "a photo of a green cross"'
    " --baseline results/runs/demo/train/untrained --clip demo-clip --gif --out tuned": RUN,
    "python experiments/zero_terminal_snr.py --out FOLDER": "test_experiments.py::test_zero_terminal_snr_"
    "prints_the_table_of_its_page_and_writes_its_picture",
    "python experiments/longer_context.py --out FOLDER": "test_experiments.py::test_longer_context_prints_the_"
    "table_of_its_page_and_step_0_is_the_base_model",
    "python experiments/dreambooth.py --out FOLDER": "test_experiments.py::test_dreambooth_learns_from_the_"
    "class_pictures_that_darkroom_sample_drew",
    "python experiments/brightness.py --out FOLDER": "test_experiments.py::test_brightness_counts_the_shades_"
    "that_one_caption_was_told_of",
    "python experiments/phases.py --out FOLDER": "test_experiments.py::test_phases_begin_where_the_one_before_"
    "ended_and_not_in_noise",
    "darkroom demo serve": f"{HERE}the_demo_world_can_be_looked_at",
    "darkroom demo train-components --out FOLDER": f"{HERE}components_are_trained_into_the_folder_that_is_named",
}


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
        *("own-prompts", "no-kernel", "three-captions", "tagged"),
    }
    assert load_project("longer", tmp_path).cache == load_project("demo", tmp_path).cache
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
    for kind, settings in (("model", {}), ("vae", vae)):
        demo[kind] = f"data/{kind}"
        (project.folder / demo[kind]).mkdir()
        (project.folder / demo[kind] / "config.json").write_text(json.dumps(settings))
    weights = "diffusion_pytorch_model.safetensors"
    shutil.copy(ROOT / "src/darkroom_demo/components/vae" / weights, project.folder / demo["vae"] / weights)
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
