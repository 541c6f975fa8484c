# Captions written anew of those that pictures have, by a language model; of datasets with the section `rewrite`.


rule rewrite_part:
    input:
        captions=f"{DATASET}/recaption/{{part}}.parquet",
        components=of_run(rewriter_files),
    output:
        captions=f"{DATASET}/rewrite/{{part}}.parquet",
        manifest=f"{DATASET}/rewrite/{{part}}.json",
    log:
        f"{DATASET_LOGS}/rewrite/{{part}}.log",
    benchmark:
        f"{DATASET_LOGS}/rewrite/{{part}}.tsv"
    params:
        made_with=made_with("rewrite"),
        settings=of_run(lambda project: settings(project.dataset.rewrite)),
        components=of_run(rewriter_components),
        gates=of_run(lambda project: settings(project.dataset.rewrite_gates)),
    script:
        "../workflow/scripts/rewrite_part.py"


rule rewrite_manifest:
    input:
        recaption=f"{DATASET}/recaption/manifest.json",
        parts=for_parts(f"{DATASET}/rewrite/{{part}}.json"),
    output:
        manifest=f"{DATASET}/rewrite/manifest.json",
    log:
        f"{DATASET_LOGS}/rewrite/manifest.log",
    localrule: True
    params:
        stage="rewrite",
        settings=all_settings("rewrite"),
    script:
        "../workflow/scripts/manifest.py"
