"""The prompts that are drawn, a JSON record a line, whatever file or benchmark they come from."""

from darkroom.config.run import Draw
from darkroom.draw.stage import write_prompts
from darkroom.jobs import job

with job(snakemake.log[0]):
    write_prompts(Draw(**snakemake.params.settings), snakemake.output.prompts)
