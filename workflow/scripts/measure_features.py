"""Compute features of pictures by one network: of some of a model's drawn pictures, or of the real ones."""

from pathlib import Path

from darkroom.components.base import Component
from darkroom.jobs import job

inputs, asked = snakemake.input, snakemake.params.asked
with job(snakemake.log[0], snakemake.threads):
    from darkroom.metrics.extracted import extract, write_extracted
    from darkroom.metrics.extractor import Extractor
    from darkroom.metrics.references import references_of
    from darkroom.store.drawn import Drawn

    extractor = Extractor(**asked["extractor"])
    span = slice(*map(int, snakemake.wildcards.span.split("-")))
    if asked["number"] is None:
        pictures = Drawn(inputs.drawn_tables, inputs.drawn_tars).pictures(span)
    else:
        trained = getattr(inputs, "trained", None)
        references = references_of(inputs.tables, inputs.tars, inputs.buckets, trained)
        pictures = references.pictures(asked["number"], span)
    network = extractor.load(Component(**asked["component"]))
    found = extract(network, pictures, extractor.batch_size)
    write_extracted(Path(snakemake.output.features), found)
