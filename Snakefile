# From a list of URLs to an evaluated text-to-image model. `snakemake` makes the run that config/config.yaml names;
# `snakemake STAGE` makes one stage of it and what that needs; `--config run=NAME` picks another run.
from snakemake.utils import min_version

min_version("9.20")


configfile: "config/config.yaml"


wildcard_constraints:
    part=r"part-\d{5}",


include: "rules/common.smk"
include: "rules/download.smk"
include: "rules/filter.smk"
include: "rules/recaption.smk"
include: "rules/bucket.smk"
include: "rules/cache.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/phases.smk"


rule all:
    default_target: True
    input:
        f"{RUN}/report/manifest.json",
    localrule: True


onstart:
    begin_driving()


# What Snakemake made, DVC records; inside `dvc repro` DVC does that itself.
onsuccess:
    record_in_dvc()
