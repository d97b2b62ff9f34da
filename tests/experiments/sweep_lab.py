"""A scale at which a run of a sweep on noise takes a second."""

from __future__ import annotations

from pathlib import Path

from small_backbone import small

SCALE = """\
# For tests.
[defaults.model]
action_dim = 8
layers = 1
ff_mult = 1
predictor_hidden = 16
[settings]
data.normalisation = "shards"
data.image_size = 16
model.width = 0.125
optim.epochs = 2
optim.batch_size = 8
[evaluation]
suite = "probes"
m_val = [1]
probe_epochs = 2
agg_draws = 2
[method.sie.defaults.model]
projector = [16, 16]
[method.equimod.defaults.model]
projector = [16, 16]
"""


def scale_file(folder: Path, more: str = "") -> Path:
    """Of a ResNet-18, for processes of their own."""
    file = folder / "test.toml"
    file.write_text(SCALE + more)
    return file


def small_scale_file(folder: Path, more: str = "") -> Path:
    """Of a smaller encoder, which this process alone knows."""
    file = scale_file(folder, more)
    file.write_text(file.read_text().replace("model.width", f'model.backbone = "{small.__name__}"\nmodel.width'))
    return file
