"""Input presets: those of the published protocols (table 0.5 of the scenario specification), as data.

The code base that each comes from is named beside it; what they do is in `benchmark.inputs.images`.

Records say the name of a preset, so what a name means never changes: a new version is a new preset with a name of its
own (``glyph32-v2``), and the old one stays for whoever wants to repeat an old run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class InputPreset:
    """How images become model input, before normalisation.

    Attributes:
        name: Name in scenarios and records; equal to the entry point's.
        train: ``none``, ``pad_crop`` (padding, then a random crop of the stored size), ``resized_crop`` (random area
            and aspect ratio, resized to the model's size) or ``random_crop`` (resized as at test time, then a crop of
            the model's size at a random place).
        padding: Pixels of padding for ``pad_crop``.
        area: Range of the crop's share of the area for ``resized_crop``.
        flip: Whether images are mirrored with probability 1/2 in training.
        interpolation: Of every resize.
        test_resize: Short side at test time relative to the model's size (256/224 for the ViT
            protocols), before the centre crop; 1 resizes straight to the model's size.
        square: Resize both sides, ignoring the aspect ratio, before anything else.
        test_square: The same at test time alone.
        jitter: Largest relative change of brightness, contrast and saturation, and largest turn of the
            hue (1 is the whole circle), in training.
        grey: Probability of a grey image in training.
        source: Code base that uses it.
        summary: One line; empty where the source says enough.
        fill: What ``pad_crop`` pads with: ``zero`` (black) or ``edge`` (the outermost pixels).
    """

    name: str
    train: Literal["none", "pad_crop", "resized_crop", "random_crop"]
    padding: int = 0
    area: tuple[float, float] = (0.08, 1.0)
    flip: bool = True
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    test_resize: float = 1.0
    square: bool = False
    test_square: bool = False
    jitter: float = 0.0
    grey: float = 0.0
    source: str = ""
    summary: str = ""
    fill: Literal["zero", "edge"] = "zero"


_BUILT_IN = (
    InputPreset(name="plain", train="none", flip=False, source="no augmentation"),
    InputPreset(
        name="glyph32", train="pad_crop", padding=2, flip=False, source="adaptbench: characters must not be mirrored"
    ),
    InputPreset(
        name="glyph32-v2",
        train="pad_crop",
        padding=2,
        flip=False,
        fill="edge",
        source="adaptbench: characters must not be mirrored, and shifted paper stays white",
    ),
    InputPreset(name="cifar32", train="pad_crop", padding=4, source="mammoth, PyCIL"),
    InputPreset(name="tiny64", train="pad_crop", padding=4, source="mammoth seq-tinyimg"),
    InputPreset(
        name="unit224",
        train="resized_crop",
        area=(0.05, 1.0),
        test_resize=256 / 224,
        source="l2p-pytorch, dualprompt-pytorch, PILOT",
    ),
    InputPreset(
        name="l2p-jax",
        train="resized_crop",
        area=(0.05, 1.0),
        test_resize=256 / 224,
        interpolation="bilinear",
        square=True,
        source="google-research/l2p libml/preprocess.py",
    ),
    InputPreset(
        name="coda224", train="resized_crop", test_resize=256 / 224, source="GT-RIPL/CODA-Prompt dataloaders/utils.py"
    ),
    InputPreset(name="clip224", train="resized_crop", source="CoOp, open_clip"),
    InputPreset(
        name="imagenet224",
        train="resized_crop",
        test_resize=256 / 224,
        interpolation="bilinear",
        source="S-Prompts, mammoth seq-cub200",
    ),
    InputPreset(
        name="tllib224",
        train="resized_crop",
        test_resize=256 / 224,
        interpolation="bilinear",
        square=True,
        source="thuml/Transfer-Learning-Library examples/domain_adaptation/image_classification/utils.py",
    ),
    InputPreset(
        name="vtab224",
        train="none",
        flip=False,
        interpolation="bilinear",
        square=True,
        source="google-research/task_adaptation; PyTorch copies as ZhangYuanhan-AI/NOAH: bicubic",
    ),
    InputPreset(
        name="fgvc224",
        train="random_crop",
        test_resize=256 / 224,
        interpolation="bilinear",
        source="KMnP/vpt src/data/transforms.py",
    ),
    InputPreset(
        name="domainbed224",
        train="resized_crop",
        area=(0.7, 1.0),
        interpolation="bilinear",
        test_square=True,
        jitter=0.3,
        grey=0.1,
        source="facebookresearch/DomainBed domainbed/datasets.py",
    ),
)
PRESETS: Mapping[str, InputPreset] = {preset.name: preset for preset in _BUILT_IN}
"""The built-in presets by name."""
