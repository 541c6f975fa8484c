"""SLURM: the one package that asks the scheduler, for the executor and for `darkroom cluster check`."""

from darkroom.slurm.check import Finding, check, check_rules
from darkroom.slurm.profile import Request, read_profile
from darkroom.slurm.survey import Node, Partition, Survey, survey
from darkroom.slurm.trial import try_requests

__all__ = [
    "Finding", "Node", "Partition", "Request", "Survey", "check", "check_rules", "read_profile", "survey",
    "try_requests",
]  # fmt: skip
