"""Measure one metric on all drawn pictures."""

from darkroom.components.base import Component
from darkroom.config import load_run
from darkroom.jobs import job
from darkroom.pinned import config_folder
from darkroom.store import write_part_manifest

inputs, name = snakemake.input, snakemake.wildcards.metric
with job(snakemake.log[0], snakemake.threads):
    from darkroom.captioners.scratch import forget, scratch_folder
    from darkroom.metrics.base import Inputs
    from darkroom.metrics.embeddings import asked_features
    from darkroom.metrics.extracted import Features, computed_before
    from darkroom.metrics.references import references_of
    from darkroom.metrics.stage import measure_metric
    from darkroom.metrics.table import METRICS
    from darkroom.store.drawn import drawn_by_model, read_records

    references = None
    if METRICS[name].references:
        trained = getattr(inputs, "trained", None)
        references = references_of(inputs.tables, inputs.tars, inputs.buckets, trained)
    # No `params` of the rule: these lack what changes no score, as how a server is asked.
    section = load_run(snakemake.wildcards.run, config_folder().parent).measure.chosen[name]
    drawn = drawn_by_model(inputs.drawn_tables, inputs.drawn_tars)
    asked = asked_features(section, METRICS[name].references, drawn)
    components = {n: Component(**c) for n, c in snakemake.params.components.items()}
    counts = measure_metric(
        name,
        section,
        Inputs(
            drawn=drawn,
            records=read_records(inputs.prompts),
            components=components,
            references=references,
            features=Features(computed=computed_before(asked, components, inputs.features)),
            scratch=scratch_folder(snakemake.output.table),
        ),
        inputs.draw,
        snakemake.output.table,
        snakemake.output.protocol,
    )
    files = [snakemake.output.table, snakemake.output.protocol]
    write_part_manifest(snakemake.output.manifest, files, {name: counts}, snakemake.params.made_with)
    forget(snakemake.output.table, counts)
