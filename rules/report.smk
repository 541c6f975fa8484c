# One self-contained page.


rule report_run:
    input:
        evaluate=f"{RUN}/evaluate/manifest.json",
        metrics=f"{RUN}/evaluate/metrics.json",
        prompts=f"{RUN}/evaluate/prompts.parquet",
        pictures=drawn("tar"),
        history=f"{RUN}/train/history.parquet",
        samples=f"{RUN}/train/samples",
        buckets=of_job(f"{CACHE}/bucket/buckets.json"),
        funnel=of_job(f"{DATASET}/filter/funnel.json"),
        scores=of_run(asked_score_files_of),
        tables=for_parts(f"{DATASET}/download/{{part}}.parquet"),
        tars=for_parts(f"{DATASET}/download/{{part}}.tar"),
        captions=for_parts(f"{DATASET}/recaption/{{part}}.parquet"),
        rewritten=for_parts(f"{DATASET}/rewrite/{{part}}.parquet", if_rewritten),
        chain=of_run(manifests_above),
    output:
        page=f"{RUN}/report/report.html",
        manifest=f"{RUN}/report/manifest.json",
    log:
        f"{RUN_LOGS}/report/report.log",
    benchmark:
        f"{RUN_LOGS}/report/report.tsv"
    params:
        settings=all_settings("report"),
        run="{run}",
        dataset=of_run(lambda project: project.run.dataset or list(project.datasets)),
        source=of_run(kinds_of_sources),
        logs=of_run(folders_of_logs),
    script:
        "../workflow/scripts/report.py"
