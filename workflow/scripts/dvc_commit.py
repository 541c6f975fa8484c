"""Record in dvc.lock every stage of a run whose manifest chain is current; stale ones stay as they were."""

import subprocess
import sys
from pathlib import Path

import yaml

from darkroom.config import load_project
from darkroom.stages import DATASET_SECTIONS, current_stages

project = load_project(sys.argv[1])
declared = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
targets = []
for stage in current_stages(project):
    item = project.run.dataset if stage in DATASET_SECTIONS else project.name
    if item in declared.get(stage, {}).get("foreach", {}):
        targets.append(f"{stage}@{item}")
if targets:
    command = [sys.executable, "-m", "dvc", "commit", "--force", "--quiet", *targets]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"dvc.lock was not brought up to date: {done.stderr.strip() or done.stdout.strip()}")
