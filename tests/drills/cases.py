"""Bad input of every kind that a command can be handed, and what its error line has to name."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass

import numpy as np
import torch

from .spoils import (
    BOMB,
    Spoil,
    all_of,
    changed,
    cut,
    deep,
    remove,
    save,
    settings,
    state,
    turned,
    write,
)

LONG = "n" * 250
"""A file may be called so with `.png` behind it, but not with `.png.part`."""
NOISE = np.random.default_rng(0).bytes(3000)


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Attributes:
        what: it is.
        command: name in COMMANDS, or a module.
        named: what the error line must hold.
        options: of the command, behind those of its smallest form.
        spoil: what is done to the furnished folder first.
        resumed: whether the command goes on from the finished run in `done`.
    """

    what: str
    command: str
    named: str
    options: str = ""
    spoil: Spoil = lambda folder: None
    resumed: bool = False


IMAGE, MASK = "data/images/1.png", "data/masks/1.png"
MASKS = tuple(f"data/masks/{number}.png" for number in range(3))
D, P, N, S = (f"done/{name}.pt" for name in ("checkpoint", "detector", "nbs", "teaching"))

FILES = (
    Case("an image cut short", "train", "1.png", spoil=cut(IMAGE)),
    Case("an image of no bytes", "train", "1.png", spoil=cut(IMAGE, 0)),
    Case("an image that is text", "train", "1.png", spoil=write(IMAGE, b"hello")),
    Case("a JPEG of noise", "train", "9.jpg", spoil=write("data/images/9.jpg", NOISE[:3000])),
    Case("an image smaller than a patch", "train", "9.png", spoil=save("data/images/9.png", (63, 128))),
    Case("a PNG of 60000x60000 pixels", "train", "9.png", spoil=write("data/images/9.png", BOMB)),
    Case("two images of one stem", "train", "1.jpg", spoil=save("data/images/1.jpg")),
    Case("12 and 16 bits mixed", "train", ".png",
         spoil=all_of(deep("data/images/2.png", 4000), deep("data/images/3.png", 60_000))),
    Case("a mask cut short", "train", "1.png", spoil=cut(MASK)),
    Case("a mask that is text", "train", "1.png", spoil=write(MASK, b"hello")),
    Case("a mask without its image", "train", "9.png", spoil=save("data/masks/9.png")),
    Case("a mask of another size", "train", "1.png", spoil=save(MASK, (128, 127))),
    Case("a mask of four classes", "train", "1.png", spoil=save(MASK, (128, 128), 0, 1, 2, 3)),
    Case("a mask of grey classes", "train", "1.png", spoil=save(MASK, (128, 128), 0, 85, 170)),
    Case("a mask with 1 and 255", "train", "1.png", spoil=save(MASK, (128, 128), 0, 1, 255)),
    Case("a mask anomalous everywhere", "train", "1.png", spoil=save(MASK, (128, 128), 255)),
    Case("a mask of two pages", "train", "3.tif", spoil=save("data/masks/3.tif", pages=2)),
    Case("a mask that is a dangling link", "train", "3.png",
         spoil=lambda folder: (folder / "data/masks/3.png").symlink_to("nowhere")),
    Case("a mask of an unknown type", "train", "3.xcf", spoil=write("data/masks/3.xcf", b"gimp xcf")),
    Case("a mask that the camera did not turn", "train", "3.png",
         spoil=all_of(remove("data/images/3.png"), turned("data/images/3.jpg", (160, 128)),
                      save("data/masks/3.png", (160, 128)))),
    Case("masks without an anomaly", "train", "data", spoil=all_of(*(save(m, (128, 128), 0) for m in MASKS))),
    Case("no masks", "train", "data", spoil=remove(*MASKS)),
    Case("no images", "train", "images", spoil=all_of(*(remove(f"data/images/{n}.png") for n in range(4)))),
    Case("no image that is not labelled", "train", "labelled", "--labeled 3", remove("data/images/3.png")),
    Case("a folder that is not there", "train", "nowhere", "--data-root nowhere"),
    Case("a folder that is a file", "train", "1.png", f"--data-root {IMAGE}"),
    Case("a folder of something else", "train", "classes", "--data-root classes"),
    Case("no category of MVTec", "train", "category", "--dataset mvtec"),
    Case("an empty MVTec", "train", "data", "--dataset mvtec --category grid"),
    Case("an empty NanoTWICE", "train", "data", "--dataset nanotwice"),
    Case("an empty Magnetic Tile", "train", "data", "--dataset magnetic_tile"),
    Case("an empty CrackForest", "train", "data", "--dataset crackforest"),
    Case("a CrackForest mask of noise", "train", "001.mat", "--dataset crackforest --data-root crack",
         all_of(write("crack/groundTruth/001.mat", NOISE[:500]), lambda f: (f / "crack/image").mkdir(),
                save("crack/image/001.jpg"))),
    Case("an empty MNIST", "d_anogan", "data", "--dataset mnist --data-root data"),
    Case("MNIST of noise", "d_anogan", "ubyte", "--dataset mnist --data-root mnist",
         all_of(*(write(f"mnist/{part}-{kind}.gz", gzip.compress(NOISE[:900])) for part in ("train", "t10k")
                  for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")))),
    Case("CIFAR-10 of noise", "cifar10", "data_batch_1", "",
         all_of(*(write(f"cifar10/data_batch_{n}", NOISE[:900]) for n in range(1, 6)))),
    Case("an empty CIFAR-10", "cifar10", "data", "--data-root data"),
    Case("an empty Plant Village", "alcn", "data", "--dataset plant_village --data-root data"),
    Case("one class", "alcn", "one", "--data-root one", write("one/a/note.txt", b"")),
    Case("an empty class", "alcn", "c", "", lambda folder: (folder / "classes/c").mkdir()),
    Case("a damaged image of a class", "alcn", "1.png", "", cut("classes/a/1.png")),
)  # fmt: skip

OPTIONS = (
    *(
        Case(f"train.py {options}", "train", named, options)
        for options, named in (
            ("--dataset mvtek", "mvtek"), ("--labeled 9", "9"), ("--labeled 0", "0"),
            ("--labeled 3 3", "'3'"),
            ("--labeled some", "some"), ("--labeled -1", "-1"), ("--updates 2", "updates"),
            ("--updates 0 --segmenter-steps 0", "updates"), ("--updates -5", "updates"),
            ("--image-size 100", "image_size"),
            ("--shift 0", "shift"),
            ("--episode-length 0", "episode_length"), ("--minibatch-size 99", "minibatch_size"),
            ("--profile-length 0", "profile_length"), ("--warmup-updates 0", "warmup_updates"),
            ("--autoencoder-lr -1", "autoencoder_lr"), ("--autoencoder-lr nan", "autoencoder_lr"),
            ("--predictor-crop 100000", "predictor_crop"), ("--bottleneck-channels 0", "bottleneck_channels"),
            ("--buffer-updates 1", "buffer_updates"), ("--snapshot-cycles 0", "snapshot_cycles"),
            ("--discount 2", "discount"), ("--rollouts 0", "rollouts"),
            ("--learning-rate 7", "learning_rate"),
            ("--agent ppo --epochs 0", "epochs"), ("--agent ppo --batch-size 0", "batch_size"),
            ("--agent dqn --learning-rate -1", "learning_rate"), ("--seed -1", "seed"),
            ("--checkpoint-every 0", "checkpoint_every"), ("--device tpu", "tpu"),
            ("--device cuda:99", "cuda"), ("--dataset synthetic --difficulty 2", "difficulty"),
            ("--dataset synthetic --difficulty nan", "difficulty"),
            ("--dataset synthetic --category silk", "silk"), ("--agent nobody", "nobody"),
            ("--agent pathlib:Path", "pathlib:Path"), ("--agent nosuch:Agent", "nosuch"),
            ("--agent agents.base:Nobody", "Nobody"), ("--mask-values 7", "7"),
            ("--run-dir done", "done"), (f"--run-dir {IMAGE}", "1.png"),
            (f"--run-dir {IMAGE}/run", "1.png"), ("--run-dir /proc/nothing", "/proc/nothing"),
            (f"--run-dir {'r' * 300}", "rrr"), ("--resume", "run"),
        )
    ),
    *(
        Case(f"d_anogan {options}", "d_anogan", named, options)
        for options, named in (
            ("--model.size 30", "30"), ("--model.clusters 0", "clusters"), ("--model.latent 0", "latent"),
            ("--model.batch-size 1000", "batch_size"), ("--model.batch-size 0", "batch_size"),
            ("--model.generator-steps -1", "generator_steps"), ("--model.critic-steps 0", "critic_steps"),
            ("--model.generator-lr nan", "generator_lr"), ("--model.width 0", "width"),
            ("--per-class 0", "per_class"), ("--checkpoint-every 0", "checkpoint_every"),
            ("--device tpu", "tpu"), ("--seed -1", "seed"), ("--dataset mnist", "mnist"),
            ("--dataset folder --data-root classes --model.channels 1 --anomalous-class zebra", "zebra"),
            ("--dataset folder --data-root classes --anomalous-class all --workers 0", "workers"),
            ("--limit -1", "limit"), ("--run-dir done", "done"), (f"--run-dir {IMAGE}", "1.png"),
            ("--run-dir /proc/nothing", "/proc/nothing"),
        )
    ),
    *(
        Case(f"alcn {options}", "alcn", named, options)
        for options, named in (
            ("--model.size 12", "12"), ("--model.channels 2", "channels"), ("--model.epochs 0", "epochs"),
            ("--model.batch-size 0", "batch_size"), ("--model.alpha-low 0.95", "alpha_low"),
            ("--model.noise-width 0", "noise_width"), ("--model.denoiser-lr nan", "denoiser_lr"),
            ("--model.test-draws 0", "test_draws"), ("--noise fog", "fog"), ("--classes zebra", "zebra"),
            ("--limit -1", "limit"), ("--test-limit -1", "test_limit"), ("--workers 0", "workers"),
            ("--checkpoint-every 0", "checkpoint_every"), ("--dataset mnist", "mnist"), ("--seed -1", "seed"),
            ("--run-dir done", "done"), (f"--run-dir {IMAGE}", "1.png"),
        )
    ),
    *(
        Case(f"{module} {options}", module, named, options)
        for module, options, named in (
            ("unet", "--image-size 200", "image_size"), ("unet", "--model.crop 65", "crop"),
            ("unet", "--model.steps 0", "steps"), ("unet", "--model.width 0", "width"),
            ("unet", "--model.learning-rate nan", "learning_rate"), ("unet", "--labeled 9", "9"),
            ("unet", "--labeled 3", "labelled"), ("unet", "--run-dir done", "done"),
            ("unet", "--seed -1", "seed"),
            ("forest", "--model.trees 0", "trees"), ("forest", "--model.depth 0", "depth"),
            ("forest", "--model.sampled-share 0", "sampled_share"),
            ("reconstruction", "--dataset folder", "folder"),
            ("reconstruction", "--dataset synthetic --image-size 64", "image_size"),
            ("reconstruction", "--dataset synthetic --model.latent 0", "latent"),
            ("reconstruction", "--dataset synthetic --model.stride 0", "stride"),
            ("reconstruction", "--dataset synthetic --model.batch-size 0", "batch_size"),
            ("benchmarks.policies", "--out b --seeds 0", "seeds"),
            ("benchmarks.policies", "--out b --agents nobody", "nobody"),
            ("benchmarks.policies", "--out b --updates 0", "updates"),
            ("benchmarks.policies", f"--out {IMAGE}", "1.png"),
            ("benchmarks.ablations", "--out b --shift 0", "shift"),
            ("benchmarks.tables", "--out b --labeled 2 --image-size 100", "image_size"),
        )
    ),
)  # fmt: skip

CHECKPOINTS = (
    *(
        Case(f"checkpoint.pt {what}", "train", "checkpoint.pt", spoil=spoil, resumed=True)
        for what, spoil in (
            ("cut short", cut(D)), ("of no bytes", cut(D, 0)), ("that is text", write(D, b"hello")),
            ("that is a list", state(D, [1])), ("that is a tensor", state(D, torch.zeros(3))),
            ("that is a detector", lambda folder: os.replace(folder / P, folder / D)),
            ("without its learner", changed(D, lambda value: value.pop("learner"))),
            ("whose learner is a number", changed(D, lambda value: value.update(learner=3))),
            ("whose history is damaged", changed(D, lambda value: value.update(history="["))),
            ("without its agent", changed(D, lambda value: value.pop("agent"))),
            ("whose agent is empty", changed(D, lambda value: value.update(agent={}))),
            ("whose settings are damaged", changed(D, lambda value: value.update(settings="{"))),
            ("that is a folder", lambda folder: [(folder / D).unlink(), (folder / D).mkdir()]),
        )
    ),
    *(
        Case(f"teaching.pt {what}", "train", "teaching.pt", spoil=spoil, resumed=True)
        for what, spoil in (
            ("cut short", cut(S)), ("of no bytes", cut(S, 0)), ("that is a list", state(S, [1])),
            ("that is a checkpoint", lambda folder: os.replace(folder / D, folder / S)),
            ("whose segmenter is empty", changed(S, lambda value: value.update(all={}))),
        )
    ),
    *(
        Case(f"config.json {what}", "train", "config.json", spoil=spoil, resumed=True)
        for what, spoil in (
            ("cut short", cut("done/config.json")), ("of no bytes", cut("done/config.json", 0)),
            ("that is a list", write("done/config.json", b"[1]")),
            ("that is not UTF-8", write("done/config.json", b'{"run": "\xff"}')),
            ("without a run", settings(lambda value: value.pop("run"))),
            ("with an unknown setting", settings(lambda value: value["config"].update(drift=3))),
            ("whose shift is a word", settings(lambda value: value["config"].update(shift="far"))),
            ("whose seed is a list", settings(lambda value: value["run"].update(seed=[1]))),
        )
    ),
    *(
        Case(f"resumed {options}", "train", named, options, resumed=True)
        for options, named in (
            ("--updates 9", "updates"), ("--discount 0.5", "discount"), ("--seed 3", "seed"),
            ("--agent random", "agent"), ("--data-root classes", "classes"),
        )
    ),
    Case("resumed with another image", "train", "data", spoil=save("data/images/3.png"), resumed=True),
    Case("resumed without its data", "train", "data", resumed=True,
         spoil=lambda folder: os.replace(folder / "data", folder / "elsewhere")),
    *(
        Case(f"detector.pt {what}", "predict", "detector.pt", spoil=spoil)
        for what, spoil in (
            ("cut short", cut(P)), ("of no bytes", cut(P, 0)), ("that is not there", remove(P)),
            ("that is a checkpoint", lambda folder: os.replace(folder / D, folder / P)),
            ("that is a list", state(P, [1])),
            ("whose segmenter is empty", changed(P, lambda value: value.update(segmenter={}))),
            ("without a segmenter", changed(P, lambda value: value.update(segmenter=None))),
            ("with something else", changed(P, lambda value: value.update(colour="blue"))),
            ("whose image size is a word", changed(P, lambda value: value.update(image_size="big"))),
            ("whose weights are of another size",
             changed(P, lambda value: value["segmenter"].update({"output.bias": torch.zeros(7)}))),
        )
    ),
    *(
        Case(f"nbs.pt {what}", "predict", "nbs.pt", "--method nbs", spoil=spoil)
        for what, spoil in (
            ("cut short", cut(N)), ("that is a list", state(N, [1])),
            ("without rings", changed(N, lambda value: value.pop("rings"))),
            ("of no rings", changed(N, lambda value: value.update(rings=[]))),
            ("whose predictor is empty", changed(N, lambda value: value.update(predictors=[{}]))),
            ("whose CRF is damaged", changed(N, lambda value: value.update(crf="{"))),
            ("whose CRF lacks a kernel", changed(N, lambda value: value.update(crf="[]"))),
            ("whose weights are of another size",
             changed(N, lambda value: value["rings"][0][0].update({"output.bias": torch.zeros(7)}))),
        )
    ),
    Case("a run that is not there", "predict", "nowhere", "--run nowhere"),
    Case("a folder that is not there", "predict", "nowhere", "--images nowhere"),
    Case("a folder without images", "predict", "data", "--images data"),
    Case("an image cut short", "predict", "1.png", spoil=cut("new/1.png")),
    Case("an image smaller than a patch", "predict", "9.png", spoil=save("new/9.png", (200, 63))),
    Case("two images of one stem", "predict", "1.jpg", spoil=save("new/1.jpg")),
    Case("a PNG of 60000x60000 pixels", "predict", "9.png", spoil=write("new/9.png", BOMB)),
    Case("a name too long", "predict", "nnn", spoil=save(f"new/{LONG}.png")),
    Case("predictions made before", "predict", "masks", "--out done"),
    Case("an output that is a file", "predict", "1.png", "--out new/1.png"),
    Case("an output below a file", "predict", "1.png", "--out new/1.png/out"),
    Case("an output that cannot be written", "predict", "/proc/nothing", "--out /proc/nothing"),
    Case("no such device", "predict", "tpu", "--device tpu"),
    Case("no such GPU", "predict", "cuda", "--device cuda:99"),
    Case("a name too long", "train", "nnn", spoil=save(f"data/images/{LONG}.png")),
)  # fmt: skip

USAGE = (
    Case("train.py", "train", "preset", "--preset fast"),
    Case("train.py", "train", "updtes", "--updtes 5"),
    Case("train.py", "train", "updates", "--updates many"),
    Case("predict", "predict", "colour", "--colour blue"),
    Case("alcn", "alcn", "protocol", "--protocol 3"),
    Case("d_anogan", "d_anogan", "dataset", "--dataset imagenet"),
    Case("unet", "unet", "labeled", "--labeled many"),
    Case("policies", "benchmarks.policies", "out"),
)
"""What the parser of command lines refuses, in a box of its own."""
CASES = (*FILES, *OPTIONS, *CHECKPOINTS)
