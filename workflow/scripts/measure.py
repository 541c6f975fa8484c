"""The stage's manifest from those of its metrics, each made with its own options."""

from darkroom.jobs import job, summary_line, tell
from darkroom.metrics.stage import gather

with job(snakemake.log[0]):
    params, bucket = snakemake.params, snakemake.input.bucket
    names = [f"bucket/{share['name']}" for share in params.settings.get("datasets", [])]
    buckets = dict(zip(names, bucket, strict=True)) if names else {"bucket": bucket}
    body = gather(
        snakemake.output.manifest,
        dict(zip(params.metrics, snakemake.input.parts, strict=True)),
        dict(zip(params.metrics, params.made_with, strict=True)),
        params.settings,
        {**buckets, "draw": snakemake.input.draw},
    )
    tell(summary_line("measure", body["counts"]))
