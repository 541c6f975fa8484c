"""Measure one metric on all drawn pictures."""

from pathlib import Path

from darkroom.components.base import Component
from darkroom.jobs import job
from darkroom.store import read_manifest, write_part_manifest

inputs, name = snakemake.input, snakemake.wildcards.metric
with job(snakemake.log[0], snakemake.threads):
    from darkroom.metrics.base import Inputs
    from darkroom.metrics.references import References
    from darkroom.metrics.stage import measure_metric
    from darkroom.metrics.table import METRICS
    from darkroom.store.drawn import drawn_by_model, read_records

    references = None
    if METRICS[name].references:
        tables = [Path(path) for path in inputs.tables]
        # Results of several datasets: of each as much as the training took of it.
        trained = getattr(inputs, "trained", None)
        references = References(
            *(tables, inputs.tars, inputs.buckets, [path.parent.parent.name for path in tables]),
            read_manifest(trained)["counts"]["visits_by_dataset"] if trained else {},
        )
    counts = measure_metric(
        name,
        METRICS[name].section(**snakemake.params.settings),
        Inputs(
            drawn=drawn_by_model(inputs.drawn_tables, inputs.drawn_tars),
            records=read_records(inputs.prompts),
            components={n: Component(**c) for n, c in snakemake.params.components.items()},
            references=references,
        ),
        inputs.draw,
        snakemake.output.table,
        snakemake.output.protocol,
    )
    files = [snakemake.output.table, snakemake.output.protocol]
    write_part_manifest(snakemake.output.manifest, files, {name: counts}, snakemake.params.made_with)
