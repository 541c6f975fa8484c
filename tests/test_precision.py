"""`dtype: auto` chooses by the machine's instructions, and everything that computes says what it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_train_stage import SETTINGS, run, write_cached

from darkroom import precision
from darkroom.captioners.transformers import Transformers
from darkroom.config.run import Train
from darkroom.precision import choose, cpu_flags, described, resolve
from darkroom.sample.model import DrawOptions
from darkroom.store import write_manifest, write_part_manifest
from darkroom.train import precision as of_training
from darkroom.train.checkpoint import newest_checkpoint
from darkroom.train.signals import Stopped

CPU = torch.device("cpu")
# An older CPU, played on any.
OLDER = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    return write_cached(tmp_path_factory.mktemp("cached"))


def as_on(monkeypatch, *flags, capability="AVX512"):
    monkeypatch.setattr(precision, "cpu_flags", lambda: set(flags))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("flags", "capability", "expected"),
    [
        ((), "AVX2", "float32"),
        (("avx512f",), "AVX512", "float32"),
        (("avx512_bf16",), "AVX512", "bfloat16"),
        (("avx512_bf16", "amx_bf16"), "AVX512", "bfloat16"),
        (("avx512_bf16",), "AVX2", "float32"),
        (("bf16",), "DEFAULT", "bfloat16"),
    ],
)
def test_a_cpu_with_bfloat16_instructions_computes_in_it_and_others_in_float32(
    monkeypatch, flags, capability, expected
):
    as_on(monkeypatch, *flags, capability=capability)
    assert choose(CPU)[0] == resolve("auto", CPU) == expected


@pytest.mark.parametrize("limit", ["AVX2", "avx2", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_instructions_that_onednn_may_not_use_do_not_count(monkeypatch, limit):
    as_on(monkeypatch, "avx512_bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert choose(CPU) == (
        "float32",
        f"ONEDNN_MAX_CPU_ISA is {limit.upper()}, which has no bfloat16 instructions",
    )
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert choose(CPU)[0] == "bfloat16"


@pytest.mark.parametrize("emulated", [False, True])
def test_a_gpu_that_emulates_bfloat16_computes_in_float32(monkeypatch, emulated):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not emulated)
    assert choose(torch.device("cuda"))[0] == ("float32" if emulated else "bfloat16")


def test_the_flags_are_read_as_x86_and_arm_name_them(tmp_path):
    for line, expected in (("flags\t\t: fpu avx512_bf16", "avx512_bf16"), ("Features\t: fp bf16", "bf16")):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
        assert expected in cpu_flags(tmp_path / "cpuinfo")
    assert cpu_flags(tmp_path / "absent") == set()


def test_a_pinned_dtype_is_computed_in_on_any_machine(monkeypatch):
    as_on(monkeypatch)
    assert resolve("bfloat16", CPU) == "bfloat16"
    assert "as the configuration says" in described("bfloat16", CPU)
    assert "dtype auto computes in float32: the CPU has no" in described("auto", CPU)


def test_auto_is_the_default_wherever_a_dtype_is_computed_in():
    assert Train(num_steps=1, global_batch_size=1, microbatch_size=1).dtype == "auto"
    assert Transformers.model_fields["dtype"].default == "auto"
    assert DrawOptions().dtype == "auto"


def test_on_an_older_cpu_auto_computes_in_float32():
    script = "import torch; from darkroom.precision import choose; print(choose(torch.device('cpu'))[0])"
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | OLDER, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "float32"


def test_the_counts_and_the_log_say_what_a_training_computed_in(cached, tmp_path, monkeypatch):
    as_on(monkeypatch)
    lines = []
    counts = run(cached, tmp_path, log=lines.append)
    assert counts["computed_in"] == {"float32": SETTINGS.num_steps}
    assert "train: dtype auto computes in float32: the CPU has no bfloat16 instructions" in lines


def test_a_training_goes_on_in_the_dtype_that_it_began_in_and_says_so(cached, tmp_path, monkeypatch):
    as_on(monkeypatch)
    expected = run(cached, tmp_path / "whole")
    whole = (tmp_path / "whole/history.parquet").read_bytes()
    with pytest.raises(Stopped):
        stopped_after_the_first_checkpoint(cached, tmp_path / "cut", monkeypatch)
    assert newest_checkpoint(tmp_path / "cut/run") is not None
    monkeypatch.setattr(of_training, "choose", lambda _: ("bfloat16", "it is another machine"))
    lines = []
    assert run(cached, tmp_path / "cut", log=lines.append) == expected
    assert (tmp_path / "cut/history.parquet").read_bytes() == whole
    assert [line for line in lines if "goes on in float32, which it began in" in line]


def stopped_after_the_first_checkpoint(cached, folder, monkeypatch):
    import signal

    def draw_samples(model, step):
        signal.raise_signal(signal.SIGTERM)

    run(cached, folder, draw_samples=draw_samples)


def test_a_training_without_a_checkpoint_chooses_by_the_machine_that_it_is_on_now(
    cached, tmp_path, monkeypatch
):
    as_on(monkeypatch)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/dtype").write_text("bfloat16\n")
    assert run(cached, tmp_path)["computed_in"] == {"float32": SETTINGS.num_steps}
    assert (tmp_path / "run/dtype").read_text() == "float32\n"


def parts_in(folder: Path, *dtypes: str) -> list[Path]:
    from darkroom.store import sha256_json

    paths = []
    for number, dtype in enumerate(dtypes):
        (folder / f"part-{number}.parquet").write_text(dtype)
        paths.append(folder / f"part-{number}.json")
        write_part_manifest(
            paths[-1], [folder / f"part-{number}.parquet"], {"captioned": 3, "computed_in": {dtype: 3}},
            sha256_json({}),
        )  # fmt: skip
    return paths


def test_parts_that_were_computed_in_unlike_dtypes_are_refused(tmp_path):
    paths = parts_in(tmp_path, "bfloat16", "float32", "bfloat16")
    with pytest.raises(ValueError, match=r"2 in bfloat16, 1 in float32.*part-1\.json.*recaption\.dtype"):
        write_manifest(tmp_path / "manifest.json", stage="recaption", params={}, part_manifests=paths)
    assert not (tmp_path / "manifest.json").exists()


def test_the_manifest_counts_what_its_parts_were_computed_in(tmp_path):
    paths = parts_in(tmp_path, "float32", "float32")
    write_manifest(tmp_path / "manifest.json", stage="recaption", params={}, part_manifests=paths)
    assert json.loads((tmp_path / "manifest.json").read_text())["counts"]["computed_in"] == {"float32": 6}
