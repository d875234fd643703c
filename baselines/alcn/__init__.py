"""ALCN: a denoising autoencoder against noise that is learnt to be as hard as possible.

Jack W. Barker, Neelanjan Bhowmik, Yona Falinie A. Gaus and Toby P. Breckon, *Robust Semi-Supervised Anomaly
Detection via Adversarially Learned Continuous Noise Corruption*, Durham University.
"""
