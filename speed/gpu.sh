#!/usr/bin/env bash
# Everything that needs one GPU, in at most eight minutes: a table, and the same as JSON. See speed/gpu.py.
set -euo pipefail
cd "$(dirname "$0")/.."
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
exec python speed/gpu.py "$@"
