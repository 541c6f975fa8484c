"""Judge the averaged weights of one step of a training."""

from darkroom.components.base import Component
from darkroom.config import load_run
from darkroom.config.run import Draw, Evaluate
from darkroom.config.watch import Watch
from darkroom.jobs import job
from darkroom.pinned import config_folder
from darkroom.store import write_part_manifest

inputs, params = snakemake.input, snakemake.params
draw = Watch(**params.watch).draw(Draw(**params.draw))
with job(snakemake.log[0], draw.num_threads or snakemake.threads):
    from darkroom.benchmarks.table import read_prompts
    from darkroom.metrics.embeddings import asked_features
    from darkroom.metrics.extracted import computed_before
    from darkroom.metrics.references import References
    from darkroom.metrics.table import METRICS
    from darkroom.watch.judge import JudgeInputs, judge_step
    from darkroom.watch.judged import write_not_reached
    from darkroom.watch.legs import step_of, stopped_after

    step, after = step_of(snakemake.wildcards.step), stopped_after(inputs.model)
    counts = {}
    if after is not None:
        write_not_reached(snakemake.output.scores, step, after)
    else:
        tables = getattr(inputs, "tables", None)
        # `params` lack what changes no score, as how a server is asked.
        chosen = load_run(snakemake.wildcards.run, config_folder().parent).measure.chosen
        # One job has computed the features of real pictures for all steps; of several datasets each does itself.
        asked = dict.fromkeys(
            asked
            for name in params.metrics
            for asked in asked_features(chosen[name], METRICS[name].references, [])
        )
        components = {name: Component(**values) for name, values in params.components.items()}
        computed = computed_before(asked, components, inputs.features) if inputs.features else {}
        judged_with = JudgeInputs(
            draw,
            Evaluate(**params.evaluate),
            read_prompts(draw.prompts, draw.max_prompts),
            {name: chosen[name] for name in params.metrics},
            components,
            References(tables, inputs.tars, inputs.buckets) if tables else None,
            computed,
        )
        counts = judge_step(step, inputs.model, judged_with, snakemake.output.scores)
    files = [snakemake.output.scores, inputs.model]
    write_part_manifest(snakemake.output.manifest, files, counts, params.made_with)
