"""A page in a real browser, for tests."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

needs_browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")

NUM_TRIES, TRY_SECONDS = 5, 90


def in_chromium(page: Path, width: int = 800) -> str:
    """The page's elements after its scripts have run, in the browser's own writing.

    Every call is a browser that has kept nothing. A browser takes two seconds; about one in some hundred never
    ends on a busy machine, whatever the page, so that one is killed and another is started.
    """
    for _ in range(NUM_TRIES):
        profile = Path.cwd() / "browser"
        shutil.rmtree(profile, ignore_errors=True)
        dom = _dumped(page, profile, width)
        if dom is not None:
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
