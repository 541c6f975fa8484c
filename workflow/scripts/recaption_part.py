"""Caption the kept pictures of one part."""

from darkroom.config.components import Component
from darkroom.config.dataset import Recaption
from darkroom.jobs import job
from darkroom.recaption.original import keep_captions
from darkroom.store import write_part_manifest

tables = snakemake.input.table, snakemake.input.tar, snakemake.input.selection
with job(snakemake.log[0], snakemake.threads):
    if snakemake.params.settings is None:
        counts = keep_captions(tables[0], tables[2], snakemake.output.captions)
    else:
        from darkroom.recaption import recaption_part

        settings = Recaption(**snakemake.params.settings)
        counts = recaption_part(
            *tables, settings, Component(**snakemake.params.captioner), snakemake.output.captions
        )
    write_part_manifest(snakemake.output.manifest, [snakemake.output.captions], counts)
