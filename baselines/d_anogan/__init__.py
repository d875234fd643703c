"""D-AnoGAN: a generator for each of the disconnected manifolds that normal images lie on.

Walker Dimon, *D-AnoGAN* (master's thesis, University of Illinois Urbana-Champaign), chapters 4 and 5.
"""
