"""Processes that decode: what they may take, how they die, and that a row always ends with a word."""

import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import hostile
from test_download_server import GOOD, encoded, picture, settings

from darkroom.download import decoders
from darkroom.download.decoders import DecoderError, Decoders, Picture
from darkroom.download.memory import picture_bytes
from darkroom.download.status import Failure
from darkroom.settings.download import Download

HOSTILE = hostile(8_000_000)
SRC = Path(decoders.__file__).parents[2]


@pytest.fixture(scope="module")
def pool() -> Iterator[Decoders]:
    """A process with the bounds that a configuration has by default."""
    with Decoders(Download()) as running:
        yield running


@pytest.fixture
def obedient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoders]:
    """A process that does what pictures tell it."""
    monkeypatch.setattr(decoders, "WORKER", "fake_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with Decoders(settings(max_decode_s=0.5)) as running:
        yield running


def status(found: Picture | Failure) -> str:
    return found.status if isinstance(found, Failure) else "ok"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_picture_that_was_made_to_cost_much_ends_with_its_word(pool: Decoders, name: str) -> None:
    content = HOSTILE[name].make()
    found = pool.decode([content])
    assert status(found) == HOSTILE[name].status
    if isinstance(found, Failure) and found.status == "too_costly":
        # Told by the file's own parts, and so by any machine.
        assert found.error.startswith("the file has")
    digest = hashlib.sha256(content).hexdigest()
    assert (found.sha256, found.num_bytes) == (digest, len(content))


def test_one_process_decodes_picture_after_picture(pool: Decoders) -> None:
    first = pool.pids() or [pool.decode([GOOD]) and pool.pids()[0]]
    found = pool.decode([GOOD[:100], GOOD[100:]])
    assert isinstance(found, Picture)
    assert found[1:5] == (48, 32, 48, 32)
    assert status(pool.decode([b"<html>"])) == "not_an_image"
    assert pool.pids() == first


def test_a_picture_that_kills_its_process_twice_ends_with_a_word_and_the_next_one_is_decoded(
    obedient: Decoders,
) -> None:
    found = obedient.decode([b"die"])
    assert found == Failure(
        "decoder_died",
        "the process that decoded it was ended by SIGSEGV",
        hashlib.sha256(b"die").hexdigest(),
        3,
    )
    assert status(obedient.decode([GOOD])) == "ok"


def test_a_picture_whose_process_was_killed_by_somebody_else_has_a_second_chance(
    obedient: Decoders, tmp_path: Path
) -> None:
    assert status(obedient.decode([f"die once: {tmp_path / 'mark'}".encode()])) == "ok"


def test_what_a_dying_process_says_is_logged_in_one_line_that_can_be_printed(
    obedient: Decoders, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "darkroom.download"):
        found = obedient.decode([b"exit"])
    assert status(found) == "decoder_died"
    told = caplog.records[0].getMessage()
    assert "forged: all is well" in told and told.isprintable()


def test_a_picture_may_take_only_so_much_time_of_a_processor(obedient: Decoders) -> None:
    found = obedient.decode([b"spin"])
    assert isinstance(found, Failure)
    assert (found.status, found.error) == ("too_costly", "it takes longer than max_decode_s = 0.5")
    assert status(obedient.decode([GOOD])) == "ok"


def test_a_decoder_that_waits_for_ever_is_given_up(
    obedient: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "WALL_FACTOR", 2)
    monkeypatch.setattr(decoders, "WALL_S", 0.0)
    found = obedient.decode([b"sleep"])
    assert isinstance(found, Failure)
    assert (found.status, found.error) == ("too_costly", "it takes longer than max_decode_s = 0.5")
    assert status(obedient.decode([GOOD])) == "ok"


def test_a_picture_may_take_only_so_much_memory(obedient: Decoders) -> None:
    found = obedient.decode([b"eat"])
    assert isinstance(found, Failure)
    assert found.status == "too_costly" and "memory" in found.error
    assert obedient.pids() == []  # whatever was left behind is gone
    assert status(obedient.decode([GOOD])) == "ok"


def test_a_fault_of_our_own_is_an_internal_error_whose_traceback_is_logged(
    obedient: Decoders, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "darkroom.download"):
        found = obedient.decode([b"fail"])
    assert isinstance(found, Failure)
    assert (found.status, found.error) == ("internal_error", "unexpected RuntimeError while decoding")
    told = caplog.records[0].getMessage()
    assert "in obey" in told and "\x1b" not in told
    # Of lines that anybody could have written, all stand further to the right than ours.
    assert all(line.startswith("    ") for line in told.splitlines()[1:])


@pytest.mark.parametrize("order", [b"lie", b"boast"])
def test_an_answer_that_makes_no_sense_is_no_picture(obedient: Decoders, order: bytes) -> None:
    assert status(obedient.decode([order])) == "decoder_died"


def test_a_machine_on_which_no_process_starts_is_told_with_what_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoders, "WORKER", "no_such_module")
    with Decoders(settings()) as pool:
        with pytest.raises(DecoderError, match=r"no process that decodes .* No module named no_such_module"):
            pool.decode([GOOD])
        with pytest.raises(DecoderError):  # at once: it would not start for the next row either
            pool.decode([GOOD])
        assert pool.failure is not None


def test_the_process_ends_with_its_parent_however_that_ends() -> None:
    code = (
        "import os, signal; from darkroom.settings.download import Download;"
        "from darkroom.download.decoders import Decoders;"
        "pool = Decoders(Download()); pool.decode([b'x']); print(pool.pids()[0], flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    process = Path(f"/proc/{int(done.stdout)}")
    for _ in range(100):
        # A process that nobody has asked how it ended is still there, as a zombie.
        if not process.exists() or process.joinpath("stat").read_text().split(") ")[1][0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("it is still running")


def test_the_process_imports_nothing_that_is_large() -> None:
    code = (
        "import sys; import darkroom.download.worker;"
        "print([m for m in ('numpy', 'polars', 'pyarrow', 'pydantic', 'torch') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    assert subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_an_honest_picture_of_max_pixels_fits_into_its_memory(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    side = 1_500
    mode = "RGBA" if kind in ("PNG", "WEBP", "TIFF", "AVIF") else "RGB"
    options = {"WEBP": {"lossless": True, "method": 0}, "AVIF": {"speed": 10, "subsampling": "4:4:4"}}
    content = encoded(picture(side, side).convert(mode), kind, **options.get(kind, {}))
    chosen = settings(max_pixels=side**2, max_bytes=len(content))
    # The picture's own share: what is spare would hide a small one's needs.
    spare = 16_000_000
    monkeypatch.setattr(decoders, "picture_bytes", lambda s: picture_bytes(s) - 64_000_000 + spare)
    with Decoders(chosen) as pool:
        assert status(pool.decode([content])) == "ok"
