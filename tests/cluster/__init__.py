"""A private SLURM cluster on one machine, for tests: real daemons, several nodes, pretended GPUs.

    with Cluster() as cluster:
        subprocess.run(["sbatch", ...], env=cluster.environment())
        cluster.crash_node("n1")

or, to try something by hand, `PYTHONPATH=tests python -m cluster COMMAND ...`. Needs Debian's packages
`slurm-wlm` and `munge`; no systemd, and no root where user namespaces are allowed. All of it lies in one
folder below /tmp, which goes with the cluster; no process of it is left behind.
"""

from cluster.cluster import Cluster
from cluster.machine import missing_programs
from cluster.settings import Settings

__all__ = ["Cluster", "Settings", "missing_programs"]
