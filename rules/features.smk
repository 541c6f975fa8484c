# Features of pictures, which metrics share: a job for each network that they name and each set of pictures. Which
# these are is in extracted.smk.


rule measure_features:
    input:
        drawn_tables=drawn_by_model("parquet"),
        drawn_tars=drawn_by_model("tar"),
        components=extractor_files,
    output:
        features=f"{RUN}/features/{{features}}.{{model}}.safetensors",
    log:
        f"{RUN_LOGS}/measure/{{features}}.{{model}}.log",
    benchmark:
        f"{RUN_LOGS}/measure/{{features}}.{{model}}.tsv"
    threads: 2
    params:
        asked=extractor_of_job,
    script:
        "../workflow/scripts/measure_features.py"


rule measure_references:
    input:
        unpack(all_real_pictures),
        components=extractor_files,
    output:
        features=f"{CACHE}/features/{{features}}.{REAL}.safetensors",
    log:
        f"{CACHE_LOGS}/measure/{{features}}.{REAL}.log",
    benchmark:
        f"{CACHE_LOGS}/measure/{{features}}.{REAL}.tsv"
    threads: 2
    params:
        asked=extractor_of_job,
    script:
        "../workflow/scripts/measure_features.py"


# The same of a run on several datasets.
rule measure_mixed_references:
    input:
        unpack(all_real_pictures),
        components=extractor_files,
    output:
        features=f"{RUN}/features/{{features}}.{REAL}.safetensors",
    log:
        f"{RUN_LOGS}/measure/{{features}}.{REAL}.log",
    benchmark:
        f"{RUN_LOGS}/measure/{{features}}.{REAL}.tsv"
    threads: 2
    params:
        asked=extractor_of_job,
    script:
        "../workflow/scripts/measure_features.py"
