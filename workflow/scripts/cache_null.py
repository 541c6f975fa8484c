"""Encode the empty caption, which dropped captions and guidance use."""

from darkroom.components.base import Component
from darkroom.config.run import Cache
from darkroom.imports import quick_imports
from darkroom.jobs import job

with job(snakemake.log[0], snakemake.threads):
    with quick_imports():
        from darkroom.cache.stage import cache_null

    cache_null(
        Cache(**snakemake.params.settings),
        [Component(**values) for values in snakemake.params.text_encoders],
        snakemake.output.tensors,
    )
