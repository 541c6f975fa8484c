# Pictures for held-out prompts, from the trained and the untrained model, and the metrics on them.


rule evaluate:
    input:
        train=f"{RUN}/train/manifest.json",
        trained=f"{RUN}/train/model",
        untrained=f"{RUN}/train/untrained",
        bucket=f"{CACHE}/bucket/manifest.json",
        buckets=expand(f"{CACHE}/bucket/{{part}}.parquet", part=PARTS),
        tables=expand(f"{DATASET}/download/{{part}}.parquet", part=PARTS),
        tars=expand(f"{DATASET}/download/{{part}}.tar", part=PARTS),
        clip=component_files(PROJECT.run.evaluate.clip),
    output:
        metrics=f"{RUN}/evaluate/metrics.json",
        prompts=f"{RUN}/evaluate/prompts.parquet",
        pictures=directory(f"{RUN}/evaluate/pictures"),
        manifest=f"{RUN}/evaluate/manifest.json",
    log:
        f"{LOGS}/evaluate/evaluate.log",
    benchmark:
        f"{LOGS}/evaluate/evaluate.tsv"
    threads: PROJECT.run.evaluate.num_threads or 2
    params:
        settings=settings(PROJECT.run.evaluate),
        clip=component(PROJECT.run.evaluate.clip),
        stage=stage_settings(PROJECT, "evaluate"),
        scratch=f"checkpoints/{PROJECT.name}/evaluate",
    script:
        "../workflow/scripts/evaluate.py"
