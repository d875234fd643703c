"""Image-level rivals of ALCN and D-AnoGAN: one protocol, one split, one score.

`METHODS` in `__main__.py` has them by name; `method.py` says what a method is.
"""
