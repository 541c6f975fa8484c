# The list of URLs, cut into parts; every URL of a part fetched, checked and stored.


# The list as the parts below found it, and beside it what a kind of source has to tell, which are no outputs. The
# parts do not take their rows from here, but from where the plan has listed them: what Snakemake makes again makes it
# make again all that is made from that, and of a list that grew only the last parts have changed.
rule urls:
    output:
        urls=f"{DATASET}/urls.parquet",
    log:
        f"{DATASET_LOGS}/download/urls.log",
    benchmark:
        f"{DATASET_LOGS}/download/urls.tsv"
    params:
        version=VERSIONS["download"]["version"],
        source=of_run(lambda project: settings(project.dataset.source)),
        state=of_run(lambda project: source_state(project.dataset_name)),
        columns=of_run(lambda project: CARRIED[project.dataset_name]),
    script:
        "../workflow/scripts/urls.py"


rule download_part:
    input:
        retry_of=retried_tables,
    output:
        tar=f"{DATASET}/download/{{part}}.tar",
        table=f"{DATASET}/download/{{part}}.parquet",
        manifest=f"{DATASET}/download/{{part}}.json",
    log:
        f"{DATASET_LOGS}/download/{{part}}.log",
    benchmark:
        f"{DATASET_LOGS}/download/{{part}}.tsv"
    params:
        made_with=made_with("download"),
        source=of_run(lambda project: settings(project.dataset.source)),
        rows_per_part=of_run(lambda project: project.dataset.rows_per_part),
        rows=part_state("rows"),
        # Pictures of a folder may be others under the same names: then the rows are the same, and the part is not.
        pictures=part_state("pictures"),
        settings=of_run(lambda project: settings(project.dataset.download)),
    script:
        "../workflow/scripts/download_part.py"


rule download_manifest:
    input:
        files=[f"{DATASET}/urls.parquet"],
        parts=for_parts(f"{DATASET}/download/{{part}}.json"),
    output:
        manifest=f"{DATASET}/download/manifest.json",
    log:
        f"{DATASET_LOGS}/download/manifest.log",
    localrule: True
    params:
        stage="download",
        settings=all_settings("download"),
    script:
        "../workflow/scripts/manifest.py"
