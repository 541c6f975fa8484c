"""Caption the kept pictures of one part."""

from darkroom.config.components import Component
from darkroom.config.dataset import Recaption
from darkroom.jobs import job
from darkroom.store import write_part_manifest

with job(snakemake.log[0], snakemake.threads):
    from darkroom.recaption import recaption_part

    counts = recaption_part(
        snakemake.input.table,
        snakemake.input.tar,
        snakemake.input.selection,
        Recaption(**snakemake.params.settings),
        Component(**snakemake.params.captioner),
        snakemake.output.captions,
    )
    write_part_manifest(snakemake.output.manifest, [snakemake.output.captions], counts)
