# Scores are stored once; thresholds are applied late, by the selection.


rule filter_score_part:
    input:
        table=f"{DATASET}/download/{{part}}.parquet",
    output:
        scores=f"{DATASET}/filter/{{part}}.scores.parquet",
    log:
        f"{DATASET_LOGS}/filter/{{part}}.scores.log",
    benchmark:
        f"{DATASET_LOGS}/filter/{{part}}.scores.tsv"
    script:
        "../workflow/scripts/filter_score_part.py"


rule filter_duplicates:
    input:
        scores=expand(f"{DATASET}/filter/{{part}}.scores.parquet", part=PARTS),
    output:
        duplicates=f"{DATASET}/filter/duplicates.parquet",
    log:
        f"{DATASET_LOGS}/filter/duplicates.log",
    script:
        "../workflow/scripts/filter_duplicates.py"


rule filter_part:
    input:
        scores=f"{DATASET}/filter/{{part}}.scores.parquet",
        duplicates=f"{DATASET}/filter/duplicates.parquet",
    output:
        selection=f"{DATASET}/filter/{{part}}.parquet",
        manifest=f"{DATASET}/filter/{{part}}.json",
    log:
        f"{DATASET_LOGS}/filter/{{part}}.log",
    benchmark:
        f"{DATASET_LOGS}/filter/{{part}}.tsv"
    params:
        settings=settings(PROJECT.dataset.filter),
    script:
        "../workflow/scripts/filter_part.py"


rule filter:
    input:
        download=f"{DATASET}/download/manifest.json",
        scores=expand(f"{DATASET}/filter/{{part}}.scores.parquet", part=PARTS),
        selections=expand(f"{DATASET}/filter/{{part}}.parquet", part=PARTS),
        parts=expand(f"{DATASET}/filter/{{part}}.json", part=PARTS),
    output:
        funnel=f"{DATASET}/filter/funnel.json",
        table=f"{DATASET}/filter/funnel.csv",
        manifest=f"{DATASET}/filter/manifest.json",
    log:
        f"{DATASET_LOGS}/filter/manifest.log",
    localrule: True
    params:
        stage="filter",
        settings=stage_settings(PROJECT, "filter"),
    script:
        "../workflow/scripts/filter.py"
