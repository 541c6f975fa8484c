# From a list of URLs to an evaluated text-to-image model. `snakemake` makes the run that config/config.yaml names;
# `snakemake STAGE` makes one stage of it and what that needs; `--config run=NAME` picks another run, and
# `--config run=NAME,NAME` several. `snakemake autoencoder --config autoencoder=NAME` trains an autoencoder.
from snakemake.utils import min_version

min_version("9.20")


include: "rules/environment.smk"
include: "rules/pinned.smk"


configfile: f"{CONFIG}/config.yaml"


include: "rules/common.smk"
include: "rules/components.smk"
include: "rules/launch.smk"
include: "rules/pictures.smk"
include: "rules/settled.smk"
include: "rules/criteria.smk"
include: "rules/training.smk"
include: "rules/autoencoders.smk"


wildcard_constraints:
    run=NAME,
    autoencoder=NAME,
    dataset=NAME,
    cache="[0-9a-f]+",
    part=r"part-(r\d\d+-)?\d{5}\d*",
    scorer=r"[a-z]\w*",
    model="trained|untrained",
    chunk=r"chunk-\d+",
    reference=r"\w[\w-]*",
    step=r"step-\d+",
    features="[0-9a-f]{16}",


include: "rules/download.smk"
include: "rules/score.smk"
include: "rules/filter.smk"
include: "rules/recaption.smk"
include: "rules/rewrite.smk"
include: "rules/bucket.smk"
include: "rules/cache.smk"
include: "rules/extracted.smk"
include: "rules/features.smk"
include: "rules/train.smk"
include: "rules/watch.smk"
include: "rules/draw.smk"
include: "rules/measure.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/autoencoder.smk"
include: "rules/stages.smk"


rule all:
    default_target: True
    input:
        manifests("report"),
    localrule: True


onstart:
    begin_driving()


# What Snakemake made, DVC records; inside `dvc repro` DVC does that itself.
onsuccess:
    note_what_is_made()
    end_driving()
    record_in_dvc()
