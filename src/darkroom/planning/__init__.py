"""`darkroom plan RUN`: what a run will take, from what jobs took on this machine; and afterwards, what it took.

`observe` reads what finished jobs took, `observations` keeps it, `fit` puts a line through it, `work` says what a
run has to do, `estimate` multiplies the two, and `calibrate` makes small copies of a run that was never measured.
"""
