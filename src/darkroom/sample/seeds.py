"""Seeds of pictures: each has its own, so that none depends on what is drawn beside it."""

import hashlib
import secrets
from collections.abc import Sequence

RANDOM_SEED = -1


def picture_seed(seed: int, prompt_index: int, picture_index: int) -> int:
    """The seed (63 bits) of picture k of prompt p, from a hash: no two pictures of a run share their noise."""
    digest = hashlib.sha256(f"{seed}/{prompt_index}/{picture_index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def drawn_seeds(seeds: Sequence[int], num_prompts: int, num_pictures: int = 1) -> list[list[int]]:
    """The seeds of every prompt's pictures: those given, and for -1 a fresh one (32 bits) for each prompt.

    Args:
        num_pictures: so many for each seed that is given: it and those that follow, or as many fresh ones.
    Raises:
        ValueError: a seed is neither -1 nor a number of 0 to 2^63 - 1.
    """
    for seed in seeds:
        if not RANDOM_SEED <= seed <= 2**63 - num_pictures:
            raise ValueError(f"seed {seed} is neither -1 (random) nor from 0 to 2^63 - {num_pictures}")
    return [
        [
            secrets.randbits(32) if seed == RANDOM_SEED else seed + number
            for seed in seeds
            for number in range(num_pictures)
        ]
        for _ in range(num_prompts)
    ]
