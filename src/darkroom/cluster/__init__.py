"""What a profile asks of a SLURM cluster, and whether the cluster can give it."""

from darkroom.cluster.check import Finding, check
from darkroom.cluster.profile import Request, read_profile
from darkroom.cluster.survey import Node, Partition, Survey, survey

__all__ = ["Finding", "Node", "Partition", "Request", "Survey", "check", "read_profile", "survey"]
