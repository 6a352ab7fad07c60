"""The contract of a backbone finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark import registry
from benchmark.testing import checks

PLUGIN = """
import random
import torch
from benchmark import BackboneSpec, hookimpl
from benchmark.testing.toys import tiny_backbone
from dataclasses import replace

def load(name, *, weights, offline, image_size):
    backbone = replace(tiny_backbone(), name=name, sha256="a" * 64)
    {body}
    return backbone

@hookimpl
def bench_register_backbones():
    return [BackboneSpec(name="bad", load=load, describe=lambda name: {about}, summary="")]
"""


@pytest.mark.parametrize(
    ("check", "body", "about", "problem"),
    [
        ("facts", "backbone = replace(backbone, name='other')", {}, "its name is `other`"),
        ("facts", "backbone = replace(backbone, sha256='v2')", {}, "sha256 is 'v2'"),
        ("facts", "backbone = replace(backbone, std=(0.0, 1.0, 1.0))", {}, "mean and std"),
        ("facts", "pass", {"sha256": "b" * 64}, "promises weights bbbb"),
        ("frozen", "backbone.model.cls_token.data.fill_(float('nan'))", {}, "`cls_token` holds NaN"),
        ("repeat", "backbone.model.cls_token.data.normal_()", {}, "`cls_token` differs between two loads"),
        ("surroundings", "random.random()", {}, "Python's global generator"),
        ("size", "pass", {}, "asked for"),
    ],
)
@pytest.mark.usefixtures("registry_as_it_was", "one_thread")
def test_a_fault_is_found(check: str, body: str, about: dict[str, str], problem: str, tmp_path: Path) -> None:
    plugin = tmp_path / "bad.py"
    plugin.write_text(PLUGIN.format(body=body, about=about), encoding="utf-8")
    registry.add_file(plugin)
    (result,) = checks.run_checks(checks.backbone_subject("bad"), frozenset({check}))
    assert result.result == "fail"
    assert problem in result.message
