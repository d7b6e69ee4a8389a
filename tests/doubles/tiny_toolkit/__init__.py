"""A trainer that truly trains, as small as can be: a LoRA on a Stable Diffusion 1.5 of 326 kB, on the CPU.

Seen from outside it is the stand-in of `tests.doubles.trainer`, and so ai-toolkit; its weights are learned with torch,
diffusers, transformers and peft. `TRAINER_PYTHON tests/doubles/tiny_toolkit/run.py CONFIG.json`, with this folder as
the checkout (`AI_TOOLKIT_PATH`); `model.name_or_path` is a folder made by `tests/data/tiny_diffusers.py`.
"""
