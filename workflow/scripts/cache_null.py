"""Encode the empty caption, which dropped captions and guidance use."""

from darkroom.config.components import Component
from darkroom.config.run import Cache
from darkroom.jobs import job

with job(snakemake.log[0], snakemake.threads):
    from darkroom.cache import cache_null

    cache_null(
        Cache(**snakemake.params.settings),
        [Component(**values) for values in snakemake.params.text_encoders],
        snakemake.output.tensors,
    )
