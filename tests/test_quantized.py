"""Base weights in 8 and 4 bits below adapters: refused where they cannot be had, and right where they can."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, shared_folder
from fetched import installed_package
from pydantic import ValidationError

from darkroom.config.families import check_base_dtype
from darkroom.config.optional import check_base_package
from darkroom.families.base import LoRA

BITSANDBYTES = "bitsandbytes==0.50.2"


@pytest.mark.real
def test_with_bitsandbytes_weights_products_trainings_and_exports_are_right(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """In a process of its own, since what else imports it would change by that."""
    package = installed_package(BITSANDBYTES, shared_folder(tmp_path_factory), "packaging")
    paths = os.pathsep.join([str(package), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests/quantized_cases.py")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    assert "11 passed" in done.stdout


def test_without_the_package_or_a_gpu_it_is_refused_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(
        ValueError, match=r"nf4 needs bitsandbytes, .* run `pip install bitsandbytes`, or write float32"
    ):
        check_base_package("nf4")
    with pytest.raises(ValueError, match="int8 needs a GPU; this training runs on cpu: write float32"):
        check_base_dtype("int8", "cpu")
    for dtype, device in (("float32", "cpu"), ("nf4", "cuda")):
        check_base_dtype(dtype, device)
    check_base_package("float32")


def test_a_run_that_does_not_name_it_keeps_its_settings() -> None:
    assert "base_dtype" not in LoRA(targets=("to_q",)).model_dump()
    with pytest.raises(ValidationError, match="'float32', 'int8' or 'nf4'"):
        LoRA.model_validate({"targets": ["to_q"], "base_dtype": "int4"})
