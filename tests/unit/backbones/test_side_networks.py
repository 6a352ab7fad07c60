"""Side networks: shapes at every size of image, and weights that must be the right file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from benchmark.backbones.side_networks import ALEXNET_SHA256, ALEXNET_URL, Side, SideNetwork, load_alexnet
from benchmark.errors import DataMissing


@pytest.mark.parametrize(("kind", "sizes"), [("small", (4, 32, 50)), ("alexnet", (32, 64, 96))])
def test_features_of_any_image(kind: Side, sizes: tuple[int, ...]) -> None:
    side = SideNetwork(kind, 24)
    with torch.no_grad():
        for size in sizes:
            images = torch.randn(3, 3, size, size)
            features = side(images)
            assert features.shape == (3, 24)
            torch.testing.assert_close(side(images[1:2])[0], features[1], atol=1e-6, rtol=1e-5)


def test_alexnet_has_the_published_number_of_weights_and_no_classifier() -> None:
    with torch.device("meta"):
        side = SideNetwork("alexnet", 768)
    assert sum(p.numel() for p in side.features.parameters()) == 2_469_696
    assert side.projection.weight.shape == (768, 9216)
    assert side.projection.bias is None
    assert sum(p.numel() for p in side.parameters()) == 9_547_584


def saved(path: Path, state: dict[str, torch.Tensor]) -> str:
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_come_from_the_right_file_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, side = SideNetwork("alexnet", 8), SideNetwork("alexnet", 8)
    state = {f"features.{name}": value for name, value in source.features.state_dict().items()}
    file = tmp_path / "alexnet.pth"
    digest = saved(file, {**state, "classifier.6.bias": torch.zeros(1000)})
    load_alexnet(side, file, sha256=digest[:8])
    assert all(torch.equal(a, b) for a, b in zip(side.features.parameters(), source.features.parameters(), strict=True))
    assert not torch.equal(side.projection.weight, source.projection.weight)
    with pytest.raises(DataMissing, match=f"SHA-256 is {digest[:12]}..., not {ALEXNET_SHA256}") as caught:
        load_alexnet(side, file)
    assert ALEXNET_URL in str(caught.value.hint)
    wrong = saved(tmp_path / "wrong.pth", {**state, "features.0.bias": torch.zeros(3)})
    with pytest.raises(DataMissing, match="are not those of torchvision's AlexNet"):
        load_alexnet(side, tmp_path / "wrong.pth", sha256=wrong[:8])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with pytest.raises(DataMissing, match=r"alexnet-owt-7be5be79\.pth: No such file"):
        load_alexnet(side)
