"""A captioner of batches that is killed goes on from the batches that are finished, to the same bytes."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import warm
from test_recaption import SETTINGS, component, make_part, one_thread  # noqa: F401 - fixtures

from darkroom.captioners.llava import Llava
from darkroom.captioners.scratch import scratch_folder
from darkroom.captioners.transformers import Transformers
from darkroom.components.base import Component
from darkroom.config.gates import CaptionGates
from darkroom.recaption.stage import recaption_part
from darkroom.store import sha256_file

TESTS = Path(__file__).parent
# Six pictures are kept: three batches, and some of new tries.
PAIRS = SETTINGS.model_copy(update={"batch_size": 2})
GATES = CaptionGates.model_validate(
    {"gates": [{"kind": "flags", "captions": ["long"], "none_of": ["truncated"]}], "retries": 2}
)


class Killed(BaseException):
    """Ends a job where it stands, as a signal does."""


def generate(monkeypatch: pytest.MonkeyPatch, until: int | None = None) -> list[int]:
    """Have the model be killed when it begins its batch number `until`; returns the sizes of those before."""
    sizes: list[int] = []
    plain = Llava.generate

    def counting(self: Llava, inputs: dict[str, Any], requests: Any) -> Any:
        if len(sizes) == until:
            raise Killed
        sizes.append(len(inputs["input_ids"]))
        return plain(self, inputs, requests)

    monkeypatch.setattr(Llava, "generate", counting)
    return sizes


def captioned(folder: Path, of: Component, settings: Transformers = PAIRS) -> tuple[Path, dict[str, Any]]:
    """The captions of the part in a folder."""
    part = folder / "part.parquet", folder / "part.tar", folder / "selection.parquet"
    out = folder / "captions.parquet"
    return out, recaption_part(*part, settings, {"tiny": of}, out, GATES)


def test_killed_after_every_batch_it_makes_none_twice_and_the_same_bytes(
    tmp_path: Path,
    component: Component,  # noqa: F811
) -> None:
    for name in ("whole", "killed"):
        make_part(tmp_path / name, list(range(7)))
    with pytest.MonkeyPatch.context() as patch:
        needed = generate(patch)
        whole, counts = captioned(tmp_path / "whole", component)
    assert needed[:3] == [2, 2, 2] and len(needed) > 3, "nothing was asked for again"
    for _ in needed[1:]:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            made = generate(patch, until=1)
            captioned(tmp_path / "killed", component)
        assert len(made) == 1
    assert scratch_folder(tmp_path / "killed/captions.parquet").is_dir()
    with pytest.MonkeyPatch.context() as patch:
        made = generate(patch)
        killed, again = captioned(tmp_path / "killed", component)
    assert made == needed[-1:] and again == counts and sha256_file(killed) == sha256_file(whole)
    assert not scratch_folder(killed).exists()


def test_a_batch_that_is_half_kept_is_made_whole_and_other_settings_make_all_again(
    tmp_path: Path,
    component: Component,  # noqa: F811
) -> None:
    part = make_part(tmp_path, list(range(7)))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        generate(patch, until=2)
        captioned(tmp_path, component)
    (journal,) = scratch_folder(tmp_path / "captions.parquet").glob("*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-9])

    def made(**changed: Any) -> int:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            sizes = generate(patch, until=2)
            captioned(tmp_path, component, PAIRS.model_copy(update=changed))
        return len(sizes)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        # The second batch again, and no more.
        sizes = generate(patch, until=1)
        captioned(tmp_path, component)
    assert sizes == [2] and len(list(journal.parent.glob("*.jsonl"))) == 2
    assert made(max_new_tokens=5) == 2
    assert made(max_new_tokens=5, batch_size=3) == 2
    # Prefixes are removed afterwards: what was made before holds.
    other = PAIRS.model_copy(update={"max_new_tokens": 5, "batch_size": 3, "strip_prefixes": ("a",)})
    with pytest.MonkeyPatch.context() as patch:
        sizes = generate(patch)
        recaption_part(*part, other, {"tiny": component}, tmp_path / "captions.parquet")
    assert sizes == []


JOB = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_captioner_batches import captioned
from darkroom.captioners.llava import Llava
from darkroom.components.base import Component
plain = Llava.generate
def slow(self, inputs, requests):
    time.sleep(0.3)
    return plain(self, inputs, requests)
Llava.generate = slow
captioned(Path({folder!r}), Component(kind="captioner", path={path!r}))
"""


def test_a_job_that_is_killed_by_the_system_goes_on_too(
    tmp_path: Path,
    component: Component,  # noqa: F811
) -> None:
    for name in ("whole", "killed"):
        make_part(tmp_path / name, list(range(7)))
    whole, counts = captioned(tmp_path / "whole", component)
    scratch = scratch_folder(tmp_path / "killed/captions.parquet")
    code = JOB.format(tests=str(TESTS), folder=str(tmp_path / "killed"), path=component.path)
    with subprocess.Popen(["python", "-c", code], env=warm.jobs.environment(os.environ)) as job:
        # A heading, and the two captions of the two pictures of a batch.
        while job.poll() is None and lines(scratch) < 5:
            time.sleep(0.01)
        job.kill()
    kept = lines(scratch)
    assert kept in (5, 9, 13), "it ended before it was killed"
    with pytest.MonkeyPatch.context() as patch:
        needed = generate(patch)
        captioned(tmp_path / "whole", component)
    with pytest.MonkeyPatch.context() as patch:
        made = generate(patch)
        killed, again = captioned(tmp_path / "killed", component)
    assert len(made) == len(needed) - kept // 4
    assert again == counts and sha256_file(killed) == sha256_file(whole)


def lines(scratch: Path) -> int:
    """Whole lines of a journal."""
    return sum(path.read_bytes().count(b"\n") for path in scratch.glob("*.jsonl"))
