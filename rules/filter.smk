# Criteria are applied late, to what is stored of every row: changing one fetches and scores nothing.


rule filter_part:
    input:
        table=f"{DATASET}/download/{{part}}.parquet",
        scores=asked_score_files,
    output:
        selection=f"{DATASET}/filter/{{part}}.parquet",
        manifest=f"{DATASET}/filter/{{part}}.json",
    log:
        f"{DATASET_LOGS}/filter/{{part}}.log",
    benchmark:
        f"{DATASET_LOGS}/filter/{{part}}.tsv"
    params:
        made_with=made_with("filter"),
        keep=of_run(lambda project: list(map(settings, project.dataset.keep))),
        scorers=of_run(scorers_asked),
    script:
        "../workflow/scripts/filter_part.py"


rule filter_manifest:
    input:
        score=f"{DATASET}/score/manifest.json",
        selections=for_parts(f"{DATASET}/filter/{{part}}.parquet"),
        parts=for_parts(f"{DATASET}/filter/{{part}}.json"),
    output:
        funnel=f"{DATASET}/filter/funnel.json",
        table=f"{DATASET}/filter/funnel.csv",
        manifest=f"{DATASET}/filter/manifest.json",
    log:
        f"{DATASET_LOGS}/filter/manifest.log",
    localrule: True
    params:
        stage="filter",
        settings=all_settings("filter"),
    script:
        "../workflow/scripts/filter.py"
