"""All methods by name."""

from __future__ import annotations

from baselines.classes.arae import ARAE
from baselines.classes.deep_svdd import DeepSVDD
from baselines.classes.egbad import EGBAD
from baselines.classes.f_anogan import FAnoGAN
from baselines.classes.ganomaly import GANomaly
from baselines.classes.method import Method
from baselines.classes.ocgan import OCGAN
from baselines.classes.oled import OLED
from baselines.classes.pca import PCA
from baselines.classes.skip_ganomaly import SkipGANomaly
from baselines.classes.vae import VAE

METHODS: dict[str, type[Method]] = {
    "pca": PCA,
    "vae": VAE,
    "deep_svdd": DeepSVDD,
    "ganomaly": GANomaly,
    "skip_ganomaly": SkipGANomaly,
    "f_anogan": FAnoGAN,
    "egbad": EGBAD,
    "ocgan": OCGAN,
    "oled": OLED,
    "arae": ARAE,
}
