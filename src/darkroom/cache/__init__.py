"""Encoded pictures and captions: latents and text embeddings, made once, with everything that made them."""

from darkroom.cache.fingerprint import expected_fingerprint
from darkroom.cache.online import cache_index
from darkroom.cache.stage import cache_null, cache_part

__all__ = ["cache_index", "cache_null", "cache_part", "expected_fingerprint"]
