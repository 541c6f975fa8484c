# A job reads the configuration that its driver started with, and refuses other code; a driver reads config/ itself.
import os

from snakemake.exceptions import WorkflowError

from darkroom import pinned
from darkroom.config.yaml_files import YamlError, read_yaml


def config_of_this_process():
    """The folder of the configuration."""
    if workflow.is_main_process:
        # Of a job that this driver is started in.
        os.environ.pop(pinned.VARIABLE, None)
        return "config"
    try:
        pinned.check_code()
        return str(pinned.config_folder())
    except pinned.PinError as error:
        raise WorkflowError(str(error)) from None


def refuse_what_cannot_be_read(path):
    """Snakemake reads the file too, and names no line."""
    try:
        read_yaml(path)
    except YamlError as error:
        raise WorkflowError(str(error)) from None


CONFIG = config_of_this_process()
# What a driver pins when it starts jobs. Taken before the configuration is read, so that an edit while many parts
# are looked at is one of the next run.
SNAPSHOT = pinned.take_snapshot(workflow.basedir) if workflow.is_main_process else None
refuse_what_cannot_be_read(f"{CONFIG}/config.yaml")
