# Features of pictures, which metrics share: jobs for each network that they name and each set of pictures, as many as
# it takes. Which these are is in extracted.smk.


wildcard_constraints:
    span=r"\d+-\d+",


rule measure_features:
    input:
        drawn_tables=drawn_by_model("parquet"),
        drawn_tars=drawn_by_model("tar"),
        components=extractor_files,
    output:
        features=f"{RUN}/features/{{features}}.{{model}}.{{span}}.safetensors",
    log:
        f"{RUN_LOGS}/measure/{{features}}.{{model}}.{{span}}.log",
    benchmark:
        f"{RUN_LOGS}/measure/{{features}}.{{model}}.{{span}}.tsv"
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
        features=f"{CACHE}/features/{{features}}.{REAL}.{{span}}.safetensors",
    log:
        f"{CACHE_LOGS}/measure/{{features}}.{REAL}.{{span}}.log",
    benchmark:
        f"{CACHE_LOGS}/measure/{{features}}.{REAL}.{{span}}.tsv"
    threads: 2
    params:
        asked=extractor_of_job,
    script:
        "../workflow/scripts/measure_features.py"


# The same of a run on several datasets, with its own files.
use rule measure_references as measure_mixed_references with:
    output:
        features=f"{RUN}/features/{{features}}.{REAL}.{{span}}.safetensors",
    log:
        f"{RUN_LOGS}/measure/{{features}}.{REAL}.{{span}}.log",
    benchmark:
        f"{RUN_LOGS}/measure/{{features}}.{REAL}.{{span}}.tsv"
