"""The executor `darkroom`: that of snakemake-executor-plugin-slurm, with a watch over its jobs.

Snakemake finds it by the package's name. Its settings are the plugin's own, with `darkroom-` before them.
"""

from snakemake_executor_plugin_slurm import common_settings

from snakemake_executor_plugin_darkroom.executor import Executor, ExecutorSettings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
