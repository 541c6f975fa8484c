# Scores with intervals from all metrics, and how the trained model differs from the untrained.


rule evaluate_run:
    input:
        train=f"{RUN}/train/manifest.json",
        draw=f"{RUN}/draw/manifest.json",
        measure=f"{RUN}/measure/manifest.json",
        prompts=f"{RUN}/draw/prompts.jsonl",
        drawn_tables=drawn("parquet"),
        tables=measured("{metric}.parquet"),
        protocols=measured("{metric}.protocol.json"),
    output:
        metrics=f"{RUN}/evaluate/metrics.json",
        prompts=f"{RUN}/evaluate/prompts.parquet",
        manifest=f"{RUN}/evaluate/manifest.json",
    log:
        f"{RUN_LOGS}/evaluate/evaluate.log",
    benchmark:
        f"{RUN_LOGS}/evaluate/evaluate.tsv"
    params:
        settings=of_run(lambda project: settings(project.run.evaluate)),
        draw=of_run(lambda project: settings(project.run.draw)),
        metrics=of_run(lambda project: list(project.run.measure.chosen)),
        stage=all_settings("evaluate"),
    script:
        "../workflow/scripts/evaluate.py"
