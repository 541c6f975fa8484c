"""Caption the kept pictures of one part."""

from darkroom.components.base import Component
from darkroom.config.dataset import parse_recaption
from darkroom.jobs import job
from darkroom.recaption.original import keep_captions
from darkroom.store import write_part_manifest

tables = snakemake.input.table, snakemake.input.tar, snakemake.input.selection
with job(snakemake.log[0], snakemake.threads):
    if snakemake.params.settings is None:
        counts = keep_captions(tables[0], tables[2], snakemake.output.captions)
    else:
        from darkroom.recaption.stage import recaption_part

        settings = parse_recaption(snakemake.params.settings)
        components = {name: Component(**values) for name, values in snakemake.params.components.items()}
        counts = recaption_part(*tables, settings, components, snakemake.output.captions)
    write_part_manifest(
        snakemake.output.manifest, [snakemake.output.captions], counts, snakemake.params.made_with
    )
