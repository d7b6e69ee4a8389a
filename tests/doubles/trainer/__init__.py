"""A stand-in for ai-toolkit: it learns nothing and behaves like it, seen from outside; standard library only.

Written from the observed contract of 0.12.26: its files, bars and prints, its two databases, its resume by ctime, its
exit codes. `python tests/doubles/trainer/run.py CONFIG.json`, with this folder as the checkout (`AI_TOOLKIT_PATH`).
`STANDIN_FAULTS="nan_from=5 kill_at=8"` makes it misbehave, see `faults`; `STANDIN_STEP_S` is how long a step takes.
"""
