"""PBS (PBS Professional, OpenPBS, Torque): the one package that asks it, for `profiles/pbs` and its driver.

`python -m darkroom.pbs submit` and `... status` are the commands that Snakemake's generic cluster executor calls
for every job; so that they start at once, nothing here imports more than Python's own library.
"""
