"""What the tests of the captioner `server` share: a server that plays it, short pauses, and a key."""

from collections.abc import Iterator

import pytest
from played_captioner import Server, serving

from darkroom.captioners.served import client

KEY = "sk-test-0123456789"


@pytest.fixture
def server() -> Iterator[Server]:
    """One on loopback."""
    with serving() as played:
        yield played


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the tries of a request."""
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.001)
