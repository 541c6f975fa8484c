"""Encoded pictures and captions: latents and text embeddings, made once, with everything that made them.

Import from the modules: `cache.stage` (cache_part, cache_null), `cache.online` (cache_index), `cache.fingerprint`.
"""

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 2
