"""Run one command in a cluster of its own: `PYTHONPATH=tests python -m cluster sinfo`."""

import subprocess
import sys

from cluster import Cluster

with Cluster() as cluster:
    done = subprocess.run(sys.argv[1:] or ["sinfo"], env=cluster.environment())
sys.exit(done.returncode)
