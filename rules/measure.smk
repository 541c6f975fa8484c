# One metric on all pictures: a job for each, which draws nothing again.


wildcard_constraints:
    metric="|".join(METRICS),


rule measure_metric:
    input:
        unpack(real_pictures),
        draw=f"{RUN}/draw/manifest.json",
        prompts=f"{RUN}/draw/prompts.jsonl",
        drawn_tables=drawn("parquet"),
        drawn_tars=drawn("tar"),
        features=features_of_metric,
        components=metric_component_files,
    output:
        table=f"{RUN}/measure/{{metric}}.parquet",
        protocol=f"{RUN}/measure/{{metric}}.protocol.json",
        manifest=f"{RUN}/measure/{{metric}}.json",
    log:
        f"{RUN_LOGS}/measure/{{metric}}.log",
    benchmark:
        f"{RUN_LOGS}/measure/{{metric}}.tsv"
    threads: 2
    params:
        made_with=lambda wildcards: metric_digest(
            project_of(wildcards), wildcards.metric
        ),
        settings=lambda wildcards: settings(metric_settings(wildcards)),
        components=lambda wildcards: {
            name: component(name) for name in metric_components(wildcards)
        },
    script:
        "../workflow/scripts/measure_metric.py"


rule measure_manifest:
    input:
        bucket=of_job(f"{CACHE}/bucket/manifest.json"),
        draw=f"{RUN}/draw/manifest.json",
        parts=measured("{metric}.json"),
    output:
        manifest=f"{RUN}/measure/manifest.json",
    log:
        f"{RUN_LOGS}/measure/manifest.log",
    localrule: True
    params:
        metrics=of_run(chosen_metrics),
        made_with=of_run(digests_of_metrics),
        settings=all_settings("measure"),
    script:
        "../workflow/scripts/measure.py"
