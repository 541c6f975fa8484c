# One self-contained page.


rule report:
    input:
        evaluate=f"{RUN}/evaluate/manifest.json",
        metrics=f"{RUN}/evaluate/metrics.json",
        prompts=f"{RUN}/evaluate/prompts.parquet",
        pictures=f"{RUN}/evaluate/pictures",
        history=f"{RUN}/train/history.parquet",
        samples=f"{RUN}/train/samples",
        buckets=f"{CACHE}/bucket/buckets.json",
        funnel=f"{DATASET}/filter/funnel.json",
        tables=expand(f"{DATASET}/download/{{part}}.parquet", part=PARTS),
        tars=expand(f"{DATASET}/download/{{part}}.tar", part=PARTS),
        captions=expand(f"{DATASET}/recaption/{{part}}.parquet", part=PARTS),
        chain=[
            str(manifest_path(PROJECT, stage)) for stage in STAGES if stage != "report"
        ],
    output:
        page=f"{RUN}/report/report.html",
        manifest=f"{RUN}/report/manifest.json",
    log:
        f"{LOGS}/report/report.log",
    params:
        settings=stage_settings(PROJECT, "report"),
        run=PROJECT.name,
        dataset=PROJECT.run.dataset,
        logs=[DATASET_LOGS, CACHE_LOGS, LOGS],
    script:
        "../workflow/scripts/report.py"
