# What the dataset's scorers say of every row. A scorer scores again for its own options alone.


rule score_references:
    output:
        table=f"{DATASET}/score/references/{{reference}}.parquet",
    log:
        f"{DATASET_LOGS}/score/references/{{reference}}.log",
    benchmark:
        f"{DATASET_LOGS}/score/references/{{reference}}.tsv"
    threads: 2
    params:
        pictures=lambda wildcards: REFERENCES[wildcards.dataset][wildcards.reference],
        versions=[
            VERSIONS["download"]["version"],
            SCORERS["perceptual_hash"].version,
        ],
    script:
        "../workflow/scripts/score_references.py"


rule score_part:
    input:
        table=f"{DATASET}/download/{{part}}.parquet",
        tar=scored_tar,
        components=scorer_component_files,
        references=reference_tables,
    output:
        columns=f"{DATASET}/score/{{part}}.{{scorer}}.parquet",
        manifest=f"{DATASET}/score/{{part}}.{{scorer}}.json",
    log:
        f"{DATASET_LOGS}/score/{{part}}.{{scorer}}.log",
    benchmark:
        f"{DATASET_LOGS}/score/{{part}}.{{scorer}}.tsv"
    params:
        made_with=scored_with,
        options=scorer_options,
        components=scorer_components,
    script:
        "../workflow/scripts/score_part.py"


# Of all parts of the list, and of all parts of each round of retries: what rounds add changes nothing of before.
rule score_dataset:
    input:
        tables=tables_of_round(earlier=False),
        before=tables_of_round(earlier=True),
        scores=scores_before,
    output:
        columns=f"{DATASET}/score/{{of}}{{scorer}}.parquet",
        manifest=f"{DATASET}/score/{{of}}{{scorer}}.json",
    log:
        f"{DATASET_LOGS}/score/{{of}}{{scorer}}.log",
    benchmark:
        f"{DATASET_LOGS}/score/{{of}}{{scorer}}.tsv"
    wildcard_constraints:
        of=r"(part-r\d\d+\.)?",
        # `manifest` is no scorer: the collecting rule makes it.
        scorer=r"(?!manifest\b)[a-z]\w*",
    threads: 2
    params:
        made_with=scored_with,
        options=scorer_options,
    script:
        "../workflow/scripts/score_dataset.py"


rule score_manifest:
    input:
        download=f"{DATASET}/download/manifest.json",
        columns=lambda wildcards: score_files_of(wildcards.dataset, ".parquet"),
        parts=lambda wildcards: score_files_of(wildcards.dataset, ".json"),
    output:
        manifest=f"{DATASET}/score/manifest.json",
    log:
        f"{DATASET_LOGS}/score/manifest.log",
    localrule: True
    params:
        made_with=of_run(all_scored_with),
        settings=all_settings("score"),
    script:
        "../workflow/scripts/score.py"
