"""D-AnoGAN: a generator for each of the disconnected manifolds that normal images lie on.

Walker L. Dimon, *Unsupervised Anomaly Detection in Multi-Class Datasets Using Generative Adversarial
Networks*, master's thesis, University of Illinois Urbana-Champaign, 2021; chapters 4 and 5, appendices A, B.
"""
