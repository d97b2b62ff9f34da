"""How a report names encoders that are not the paper's."""

from __future__ import annotations

import pytest

from seqjepa.recipes import load_recipe
from seqjepa.report.groups import label


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((), ""),
        (("model.backbone=resnet50",), ""),
        (("model.backbone=timm:vit_tiny_patch16_224",), ", timm:vit_tiny_patch16_224"),
        (
            ("model.backbone=timm:test_vit", "model.patch_size=8", "model.pool=avg", "model.pretrained=w.pth"),
            ", timm:test_vit with patches of 8 px, avg pooling, pretrained",
        ),
        (
            ("model.backbone=timm:test_vit", "model.input_size=56", "model.pretrained=timm", "model.freeze=true"),
            ", timm:test_vit at 56 px, frozen weights",
        ),
        (("model.freeze=true",), ", frozen at random weights"),
    ],
)
def test_a_run_is_named_by_its_encoder(settings: tuple[str, ...], words: str) -> None:
    assert label(load_recipe("3die-rot-M3", settings)) == f"seq-JEPA, M_tr 3{words}"
