"""The profiles: what each rule asks of a cluster, down to its sbatch line, and how a profile is named."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, TinyProject

COMMON = "--requeue"
LOG = "--open-mode=append"
TABLES = f"-p cpu -t 60 --mem 2000 {COMMON} --ntasks=1 --cpus-per-task=1 {LOG}"
WHOLE_DATASET = f"-p cpu -t 60 --mem 4000 {COMMON} --ntasks=1 --cpus-per-task=1 {LOG}"
ONE_GPU = f"-p gpu -t 120 --mem 4000 --nodes=1 {COMMON} --cpus-per-task=1 {LOG} --gres=gpu:1"
# Rule -> what sbatch is told, less names, folders and the wrapped command.
SUBMITTED = {
    "urls": WHOLE_DATASET,
    "download_part": TABLES.replace("--cpus-per-task=1", "--cpus-per-task=2").replace("2000", "3200"),
    "score_part": TABLES,
    "score_dataset": WHOLE_DATASET.replace("--cpus-per-task=1", "--cpus-per-task=2"),
    "filter_part": TABLES,
    "recaption_part": ONE_GPU,
    "bucket_part": TABLES,
    "cache_part": ONE_GPU,
    "cache_null": ONE_GPU,
    "train_run": f"-p gpu -t 240 --mem 6000 --nodes=2 {COMMON} --ntasks-per-node=2 --cpus-per-task=2 {LOG} "
    "--signal=USR1@600 --gres=gpu:2",
    "draw_chunk": ONE_GPU.replace("--cpus-per-task=1", "--cpus-per-task=2"),
    "measure_features": ONE_GPU.replace("--cpus-per-task=1", "--cpus-per-task=2"),
    "measure_references": ONE_GPU.replace("--cpus-per-task=1", "--cpus-per-task=2"),
    "measure_metric": ONE_GPU.replace("--cpus-per-task=1", "--cpus-per-task=2"),
    "evaluate_run": TABLES,
    "report_run": WHOLE_DATASET,
}
# The demo compares with no set of pictures, rewrites no captions, judges its model at the end alone, and trains no
# autoencoder.
NOT_OF_THE_DEMO = {
    *("autoencoder_train", "autoencoder_compare"),
    *("score_references", "rewrite_part", "train_leg", "watch_step", "measure_mixed_references"),
}
LOCAL_ELSEWHERE = {"rewrite_manifest", "watch_manifest", "autoencoder"}
# Few seconds on small files each; the rest is sent to the cluster.
LOCAL = {"download", "score", "filter", "recaption", "bucket", "cache", "draw", "measure"}
LOCAL = {f"{stage}_manifest" for stage in LOCAL} | {"draw_prompts"}

SHIMS = {
    # Notes its arguments and makes what the job would have made.
    "sbatch": 'printf "%s\\n" "$@" > "$SHIM/$$"; cp -rn "$SHIM/../made/results" .; echo $$',
    "squeue": 'for f in "$SHIM"/[0-9]*; do [ ! -f "$f" ] || echo "${f##*/}|COMPLETED"; done',
    "scontrol": "echo 'MinJobAge = 300 sec'; echo 'MaxArraySize = 1001'",
    "sacct": "exit 1",
    "sinfo": "exit 1",
    "scancel": "exit 1",
}


@pytest.fixture
def on_shims(finished_project: TinyProject, tmp_path: Path) -> TinyProject:
    """A copy of the finished project whose `sbatch` only notes what it is asked, and restores the results."""
    folder = tmp_path
    for name in ("bin", "asked"):
        (folder / name).mkdir()
    for name, body in SHIMS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    shutil.copytree(finished_project.folder / "results", folder / "made/results", symlinks=True)
    project = finished_project.copy(folder / "project")
    path = os.pathsep.join([str(folder / "bin"), project.environment["PATH"]])
    project.variables = {"PATH": path, "SHIM": str(folder / "asked")}
    return project


def asked(project: TinyProject) -> dict[str, tuple[str, str]]:
    """Rule and wildcards -> what sbatch was told, and the command it wrapped."""
    lines = {}
    for path in Path(project.variables["SHIM"]).iterdir():
        words = path.read_text().rstrip("\n").split("\n")
        options, wrapped = words[:-1], words[-1]
        assert wrapped.startswith("--wrap=")
        assert options[:2] == ["--parsable", "--job-name"] and options[2].startswith("darkroom_")
        assert options[3] == "--output" and options[5:7] == ["--export=ALL", "--comment"]
        assert options[4].startswith(f"{project.folder}/logs/slurm/rule_") and options[4].endswith("%j.log")
        at = options.index("-D")
        assert options[at + 1] == str(project.folder)
        rest = [*options[8:at], *options[at + 2 :]]
        lines[options[7].removeprefix("rule_")] = (" ".join(rest), wrapped)
        path.unlink()
    return lines


@pytest.mark.slow
def test_the_sbatch_line_of_every_rule(on_shims: TinyProject) -> None:
    polling = ["--darkroom-init-seconds-before-status-checks", "1"]
    on_shims.run("snakemake", "--profile", "slurm", "--forceall", *polling)
    lines = asked(on_shims)
    found = {job.split("_wildcards_")[0]: line for job, (line, _) in lines.items()}
    assert found == SUBMITTED
    per_rule = Counter(job.split("_wildcards_")[0] for job in lines)
    # Two of the demo's scorers look at the whole dataset.
    several = {r for r in SUBMITTED if r.endswith(("_part", "_chunk", "_features", "_metric"))} | {
        "score_dataset"
    }
    assert {rule for rule, number in per_rule.items() if number > 1} == several
    assert all("--retries 0" in wrapped and "slurm-jobstep" in wrapped for _, wrapped in lines.values())


@pytest.mark.slow
def test_dvc_submits_the_same_jobs(on_shims: TinyProject) -> None:
    on_shims.edit("profiles/slurm/profile.yaml", {"darkroom-init-seconds-before-status-checks": 1})
    on_shims.variables = {**on_shims.variables, "SNAKEMAKE_PROFILE": "profiles/slurm"}
    on_shims.edit("config/runs/demo.yaml", {"evaluate": {"num_bootstrap": 30}})
    output = on_shims.run("dvc", "repro", "evaluate-demo", check=False)
    lines = {job: line for job, (line, _) in asked(on_shims).items()}
    assert lines == {"evaluate_run_wildcards_demo": SUBMITTED["evaluate_run"]}, output
    on_shims.edit("config/runs/demo.yaml", {"train": {"learning_rate": 0.0005}})
    output = on_shims.run("dvc", "repro", "train-demo", check=False)
    lines = {job: line for job, (line, _) in asked(on_shims).items()}
    assert lines == {"train_run_wildcards_demo": SUBMITTED["train_run"]}, output


def rules() -> set[str]:
    text = "".join(path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")])
    return set(re.findall(r"^ *(?:use rule \w+ as|rule) (\w+)(?: with)?:", text, re.MULTILINE))


def test_every_rule_is_either_local_or_sent_to_the_cluster() -> None:
    text = "".join(path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")])
    bodies = dict(zip(*[iter(re.split(r"^ *rule (\w+):\n", text, flags=re.MULTILINE)[1:])] * 2, strict=True))
    local = {name for name, body in bodies.items() if "localrule: True" in body}
    assert local == LOCAL | LOCAL_ELSEWHERE | {"all"}
    assert local | set(SUBMITTED) | NOT_OF_THE_DEMO == rules()


def test_the_profiles_of_clusters_name_only_rules_that_exist_and_the_same_ones() -> None:
    profiles = [
        yaml.safe_load((ROOT / f"profiles/{name}/profile.yaml").read_text()) for name in ("slurm", "pbs")
    ]
    slurm, pbs = (
        {key: set(profile[key]) for key in ("set-resources", "set-threads")} for profile in profiles
    )
    assert slurm["set-resources"] <= set(SUBMITTED) | NOT_OF_THE_DEMO
    assert slurm["set-threads"] <= set(SUBMITTED) | NOT_OF_THE_DEMO
    assert pbs == slurm


def test_no_rule_and_no_script_knows_of_a_schedulers_commands() -> None:
    files = [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk"), *(ROOT / "workflow/scripts").glob("*.py")]
    assert not [
        path.name
        for path in files
        if re.search(r"slurm|sbatch|\bq(?:sub|stat|del)\b|(?<!\.)\bpartition\b", path.read_text(), re.I)
    ]


@pytest.mark.parametrize("name", ["slurm", "pbs"])
def test_every_value_of_a_clusters_profile_has_a_reason_above_it(name: str) -> None:
    lines = (ROOT / f"profiles/{name}/profile.yaml").read_text().splitlines()
    unexplained = []
    for before, line in zip(["", *lines], lines, strict=False):
        if re.match(r"[\w-]+:", line) and not before.startswith("#"):
            unexplained.append(line)
    assert not unexplained


@pytest.mark.slow
def test_the_bare_name_is_the_profile_of_the_folder(tmp_path: Path) -> None:
    link = ROOT / "slurm"
    assert link.is_symlink() and os.readlink(link) == "profiles/slurm"
    assert not (ROOT / "profiles/default").exists()
    project = TinyProject(tmp_path)
    assert (tmp_path / "slurm").is_symlink()
    for name in ("slurm", "profiles/slurm"):
        planned = project.run("snakemake", "-n", "train", "--profile", name)
        assert "mpi=srun" in planned and "slurm_partition=gpu" in planned, name
    local = project.run("snakemake", "-n", "train", "--profile", "profiles/local")
    assert "mpi" not in local and "slurm" not in local


@pytest.mark.slow
def test_a_hundred_million_pictures_are_about_a_thousand_submissions(tmp_path: Path) -> None:
    project = TinyProject(tmp_path)
    rows = pa.table({"URL": pa.nulls(1_000_000, pa.string()), "TEXT": pa.nulls(1_000_000, pa.string())})
    with pq.ParquetWriter(tmp_path / "list.parquet", rows.schema) as writer:
        for _ in range(100):
            writer.write_table(rows)
    dataset = project.read("config/datasets/demo.yaml")
    del dataset["keep"]  # names columns that this list has not
    del dataset["scorers"]
    source = {"kind": "list", "path": "list.parquet"}
    # What docs/cluster.md advises for this size.
    project.write("config/datasets/demo.yaml", {**dataset, "source": source, "rows_per_part": 500_000})
    output = project.run("snakemake", "-n", "--profile", "slurm")
    rules = Counter(re.findall(r"^rule (\w+):", output, re.MULTILINE))
    # A plan names the light rules too, which run beside the driver: one job each.
    light = set(rules) - set(SUBMITTED)
    assert light == LOCAL | {"all"}
    assert all(rules[name] == 1 for name in light)
    assert rules["download_part"] == 200 and sum(rules[name] for name in SUBMITTED) == 1215
