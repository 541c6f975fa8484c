"""Index one part, whose pictures and captions are encoded during training."""

from darkroom.config.components import Component
from darkroom.config.run import Cache
from darkroom.jobs import job
from darkroom.store import write_part_manifest

with job(snakemake.log[0], snakemake.threads):
    from darkroom.cache import cache_index

    counts = cache_index(
        snakemake.input.table,
        snakemake.input.captions,
        snakemake.input.buckets,
        Cache(**snakemake.params.settings),
        Component(**snakemake.params.vae),
        [Component(**values) for values in snakemake.params.text_encoders],
        snakemake.output.tensors,
        snakemake.output.table,
    )
    write_part_manifest(snakemake.output.manifest, [snakemake.output.tensors, snakemake.output.table], counts)
