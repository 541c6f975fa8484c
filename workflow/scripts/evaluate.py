"""Draw, judge and compare the trained and the untrained model."""

from pathlib import Path

from darkroom.config.components import Component
from darkroom.config.run import Evaluate
from darkroom.jobs import job, summary_line
from darkroom.store import write_manifest

settings = Evaluate(**snakemake.params.settings)
component = Component(**snakemake.params.clip)
with job(snakemake.log[0], settings.num_threads or snakemake.threads):
    from darkroom.evaluate.references import References
    from darkroom.evaluate.stage import clip_identity, evaluate
    from darkroom.models.components import load_clip

    clip = load_clip(component)
    counts = evaluate(
        {"trained": Path(snakemake.input.trained), "untrained": Path(snakemake.input.untrained)},
        settings,
        clip,
        clip_identity(settings.clip, component, clip),
        References(snakemake.input.tables, snakemake.input.tars, snakemake.input.buckets),
        metrics=Path(snakemake.output.metrics),
        prompts=Path(snakemake.output.prompts),
        pictures=Path(snakemake.output.pictures),
        work=Path(snakemake.params.scratch),
    )
    write_manifest(
        snakemake.output.manifest,
        stage="evaluate",
        params=snakemake.params.stage,
        upstream={"bucket": snakemake.input.bucket, "train": snakemake.input.train},
        files=[snakemake.output.metrics, snakemake.output.prompts, snakemake.output.pictures],
        counts=counts,
    )
    print(summary_line("evaluate", counts))
