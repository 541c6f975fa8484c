"""What scorers that look at a part in one pass make once: a model, and what it says of a batch."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

_T = TypeVar("_T")
# Scorers of one pass are never further apart than this many batches, if these hold a picture at least.
_MAX_ANSWERS = 64


class Shared:
    """Scorers ask here for what another one may have made already; one at a time."""

    def __init__(self) -> None:
        self._models: dict[Hashable, Any] = {}
        self._answers: dict[Hashable, Any] = {}

    def model(self, key: Hashable, load: Callable[[], _T]) -> _T:
        """What `load` gives, from the first who asks for it."""
        if key not in self._models:
            self._models[key] = load()
        return cast(_T, self._models[key])

    def answer(self, key: Hashable, ask: Callable[[], _T]) -> _T:
        """What a model says of a batch, from the first who asks. The key names the model and every picture of the
        batch, as with other pictures beside it sums may be taken in another order."""
        if key not in self._answers:
            while len(self._answers) >= _MAX_ANSWERS:
                del self._answers[next(iter(self._answers))]
            self._answers[key] = ask()
        return cast(_T, self._answers[key])
