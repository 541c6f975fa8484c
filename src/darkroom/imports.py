"""Imports of large libraries, without what they pay for nothing."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import without collecting garbage: of what modules define next to nothing is any, and looking for it among
    more and more objects is a seventh of the time that torch, diffusers and transformers take."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
