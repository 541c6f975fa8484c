"""What was published, on a remote of DVC on S3: a server on loopback (moto's) in place of Amazon's or MinIO's."""

import hashlib
import shutil
from pathlib import Path

import boto3
import pytest
from conftest import TinyProject
from s3_server import REMOVED, environment_of, running_server

pytest.importorskip("dvc_s3", reason="needs the extra s3")

BUCKET = "published"


@pytest.mark.slow
def test_a_published_run_is_pushed_to_s3_and_pulled_and_checked_in_a_clone(
    finished_project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in REMOVED:
        monkeypatch.delenv(name, raising=False)
    project = finished_project.copy(tmp_path / "publisher")
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
    with running_server() as address:
        variables = environment_of(address)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        project.run("dvc", "remote", "add", "--default", "published", f"s3://{BUCKET}/darkroom")
        project.run("dvc", "push")
        keys = [one["Key"] for one in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
        assert keys and all(key.startswith("darkroom/files/md5/") for key in keys)
        project.run("git", "add", "dvc.lock", ".dvc/config", "published")
        project.run(*git, "commit", "-qm", "Results of demo")
        project.run("git", "clone", "-q", ".", str(tmp_path / "reader"))
        reader = TinyProject.__new__(TinyProject)
        reader.folder = tmp_path / "reader"
        reader.run("dvc", "pull")
        weights = "train/model/transformer/diffusion_pytorch_model.safetensors"
        path = project.folder / "results/runs/demo" / weights
        assert (reader.folder / "results/runs/demo" / weights).read_bytes() == path.read_bytes()
        # DVC takes an object by its name; whether it holds what was published is seen here.
        damaged = next(key for key in keys if key.endswith(md5_of(path)[2:]))
        client.put_object(Bucket=BUCKET, Key=damaged, Body=b"x" * path.stat().st_size)
        for name in ("results", ".dvc/cache"):
            shutil.rmtree(reader.folder / name)
        reader.run("dvc", "pull", check=False)
        told = reader.run("darkroom", "verify", "demo", check=False)
        assert "results/runs/demo/train/model: changed since" in told, told


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()
