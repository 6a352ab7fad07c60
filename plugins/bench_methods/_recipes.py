"""Published protocols that several methods have as recipes."""

from __future__ import annotations

# The recipe `vpt`: protocol of Jia et al., ECCV 2022 (paper and KMnP/vpt at 4410440). The paper searches learning rate
# and decay per data set; a recipe has one point of that grid. It knows one task only: that the classes of the
# experience compete, and that optimiser and schedule start anew, is adaptbench's reading for streams.
_VPT: dict[str, object] = {
    "epochs": 100,
    "warmup": 10,
    "schedule": "epoch-cosine",
    "lr_scaling": "batch/256",
    "head_init": "vpt",
    "normalize": "imagenet",
    "mask": "current",
}
VPT_SGD: dict[str, object] = {**_VPT, "optimizer": "vpt-sgd", "weight_decay": 0.001, "batch_size": 2048}
VPT_ADAMW: dict[str, object] = {
    **_VPT,
    "optimizer": "vpt-adamw",
    "weight_decay": 0.01,
    "official_quirks": True,
    "batch_size": 128,
    "lr": 0.001,
}
VPT_SOURCE = (
    "VPT paper, Table 8, and KMnP/vpt at 4410440, src/solver and tune_vtab.py: lr and weight_decay are one point of "
    "the searched grid; mask: adaptbench, the paper has one task"
)

TLL = "thuml/Transfer-Learning-Library@c4aa59eb"
TLL_VIT = (
    f"{TLL}, examples/domain_adaptation/image_classification: the ViT-B/16 runs on Office-Home, whose epochs are "
    "1,000 iterations"
)
# Optimiser and clock of the library's scripts: SGD with Nesterov momentum 0.9, (1 + lr_gamma * step) ** -0.75.
TLL_STEPS: dict[str, object] = {
    "backbone_lr_scale": 0.1,
    "schedule": "steps",
    "lr_gamma": 0.001,
    "normalize": "imagenet",
}
DOMAINBED = "facebookresearch/DomainBed at b93c22a1, hparams_registry.py: the defaults for photographs"

# DomainBed draws 32 images of each source domain per step: 96 where there are three sources.
DOMAINBED_ADAM: dict[str, object] = {
    "iterations": 5001,
    "batch_size": 96,
    "optimizer": "adam",
    "lr": 5e-5,
    "backbone_lr_scale": 1.0,
    "weight_decay": 0.0,
    "schedule": "constant",
    "bottleneck": 0,
    "normalize": "imagenet",
}
