"""Image-level rivals of ALCN and D-AnoGAN, each a file: one protocol, one split, one score.

`METHODS` in `methods.py` has them by name; `method.py` says what a method is.
"""
