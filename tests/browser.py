"""A page in a real browser, for tests."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

needs_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")

NUM_TRIES, TRY_SECONDS = 4, 60


def in_chromium(page: Path, width: int = 800) -> str:
    """The page's elements after its scripts have run, in the browser's own writing.

    What pages keep in the browser is there at the next call. A browser takes two seconds; about one in some
    hundred never ends on a busy machine, whatever the page, so that one is killed and another is started, on what
    the last that ended has kept.
    """
    kept = Path.cwd() / "browser"
    for _ in range(NUM_TRIES):
        profile = kept.with_name("browser-of-this-try")
        shutil.rmtree(profile, ignore_errors=True)
        if kept.exists():
            shutil.copytree(kept, profile, symlinks=True)
        dom = _dumped(page, profile, width)
        if dom is not None:
            shutil.rmtree(kept, ignore_errors=True)
            profile.rename(kept)
            return dom
    raise TimeoutError(f"chromium did not end in {NUM_TRIES} tries of {TRY_SECONDS} s on {page}")


def _dumped(page: Path, profile: Path, width: int) -> str | None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    # It asks its maker's hosts for updates else, which a machine without a network answers late or never.
    options += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    options += ["--disable-sync", "--disable-extensions"]
    options += [f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom"]
    command = ["chromium", *options, page.absolute().as_uri()]
    # Its own processes hold the pipes too, so they are stopped with it.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as browser:
        try:
            told, complaint = browser.communicate(timeout=TRY_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(browser.pid, signal.SIGKILL)
            return None
    assert browser.returncode == 0, complaint
    return told
