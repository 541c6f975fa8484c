"""What was made from one picture, and how its URL is withdrawn: `darkroom trace` and `darkroom withdraw`.

All of it is read from what lies in `results/`: tables and manifests, of whatever configuration.
"""
