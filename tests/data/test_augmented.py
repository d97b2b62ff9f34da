from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from augment_reference import augment_each, grey_levels_off
from augmentation_actions import augmentation_actions
from loaders import assert_same, augmented_loader
from PIL import Image
from typer.testing import CliRunner

from cli import seqjepa_data_app
from seqjepa.data.augment.parameters import constants_for, draw_parameters
from seqjepa.data.augment.recipes import RECIPES, Recipe, build_recipe
from seqjepa.data.loader import Loader
from seqjepa.data.sequence import ViewSequence
from seqjepa.data.views import augmented_on
from shards.errors import ConfigError
from shards.preview.rows import VIEW_TILE

SETTINGS: dict[str, Any] = {"views": 3, "batch_size": 6, "seed": 5, "workers": 0}
EQUIMOD = RECIPES["equimod"]


@pytest.fixture
def index(build_image_set):
    return build_image_set(size=(24, 24), saliency="none").images("train")


def open_loader(index, recipe: Recipe = EQUIMOD, **changes: Any) -> Loader:
    return augmented_loader(index, recipe, **(SETTINGS | changes))


def epochs_of(loader: Loader, count: int = 1) -> list[ViewSequence]:
    with loader:
        return [batch for epoch in range(count) for batch in loader.epoch(epoch)]


@pytest.mark.parametrize("resident", [True, False])
def test_a_batch_holds_views_made_as_its_parameters_say(index, resident):
    rows_of = {key: row for row, key in enumerate(index.keys)}
    seen = []
    for batch in epochs_of(open_loader(index, resident=resident, workers=2), count=2):
        rows = np.array([rows_of[key] for key in batch.keys])
        drawn = draw_parameters(EQUIMOD, rows, 3, height=24, width=24, seed=5, epoch=len(seen) // len(index))
        images = torch.from_numpy(np.stack([index.read_image(row) for row in rows])).permute(0, 3, 1, 2)
        assert grey_levels_off(batch.views, augment_each(images, drawn, 24, 3)).mean() < 0.01
        assert torch.equal(batch.params, drawn.vector())
        assert torch.equal(
            batch.actions, augmentation_actions(batch.params, "augmentation", constants_for(EQUIMOD, 24, 24))
        )
        assert batch.labels.tolist() == index.labels[rows].tolist()
        assert batch.views.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        seen += batch.keys
    assert sorted(seen[:19]) == sorted(seen[19:]) == index.keys
    assert seen[:19] != seen[19:]


def test_a_resumed_epoch_and_two_ranks_give_the_same_batches(index):
    batches = epochs_of(open_loader(index), count=2)
    assert len(batches) == 2 * len(open_loader(index)) == 8
    with open_loader(index) as second:
        for batch, expected in zip(second.epoch(0, 1), batches[1:4], strict=True):
            assert_same(batch, expected)
    ranks = [epochs_of(open_loader(index, rank=rank, world_size=2)) for rank in range(2)]
    for *pieces, whole in zip(*ranks, batches, strict=False):
        even = len(whole) - len(whole) % 2
        assert pieces[0].keys + pieces[1].keys == whole.keys[:even]
        assert torch.equal(torch.cat([p.views for p in pieces]), whole.views[:even])


@pytest.mark.parametrize(("kind", "size"), [("crop", 4), ("jitter", 4), ("blur", 1), ("augmentation", 9)])
def test_actions_are_of_the_kind_asked_for(index, kind, size):
    batch = next(open_loader(index, action=kind, normalisation="author").epoch(0))
    assert batch.actions.shape == (6, 2, size)
    assert torch.equal(batch.actions, augmentation_actions(batch.params, kind, None))


def test_of_two_views_the_second_has_the_target_pipeline(index):
    recipe = build_recipe("none", target={"solarise": 1.0, "threshold": 0})
    with open_loader(index, recipe, views=2) as loader:
        for batch in loader.epoch(0):
            assert torch.equal(batch.views[:, 1], 255 - batch.views[:, 0])


def test_views_may_have_another_size_than_images(build_image_set):
    index = build_image_set(saliency="none").images("train")
    with open_loader(index, size=16) as loader:
        batch = next(loader.epoch(0))
    assert batch.views.shape == (6, 3, 3, 16, 16)
    assert (batch.params[..., 2] <= 24).all()
    assert batch.params[..., 3].max() > 24
    with pytest.raises(
        ConfigError, match="24×28 pixels and augmented views are square; shard them with --size, or say"
    ):
        open_loader(index)


def test_what_cannot_be_is_said_at_once(index):
    with pytest.raises(ConfigError, match="no action 'rotation'; there are: crop, jitter, blur, augmentation"):
        open_loader(index, action="rotation")
    with pytest.raises(ConfigError, match="there is no normalisation 'l2' of actions; there are: zscore, author"):
        open_loader(index, normalisation="l2")
    with pytest.raises(ConfigError, match="views of 2 pixels"):
        open_loader(index, size=2)


@pytest.mark.gpu
def test_batches_are_made_on_the_gpu(index):
    for batch, expected in zip(
        epochs_of(open_loader(index, device="cuda")), epochs_of(open_loader(index)), strict=True
    ):
        assert batch.views.device.type == batch.actions.device.type == batch.params.device.type == "cuda"
        assert grey_levels_off(batch.views.cpu(), expected.views).mean() < 0.02
        assert torch.equal(batch.params.cpu(), expected.params)


def test_pictures_show_what_a_runs_first_epoch_sees(build_image_set):
    index = build_image_set(saliency="none", size=(24, 24)).images("train")
    rows = np.array([3, 0, 8])
    images = np.stack([index.read_image(row) for row in rows])
    views, params = augmented_on(images, rows, EQUIMOD, 3, seed=7)
    with open_loader(index, seed=7, views=3, shuffle=False) as loader:
        batches = list(loader.epoch(0))
    seen = [torch.cat([getattr(batch, name) for batch in batches]).numpy() for name in ("views", "params")]
    assert np.array_equal(views, seen[0][rows].transpose(0, 1, 3, 4, 2))
    assert np.array_equal(params, seen[1][rows])
    with pytest.raises(ConfigError, match="20×24 pixels, and augmented views are square; shard them with --size"):
        augmented_on(np.zeros((1, 20, 24, 3), np.uint8), rows[:1], EQUIMOD, 2)


def test_the_preview_command_shows_augmented_views(build_image_set, tmp_path):
    folder = str(build_image_set(saliency="none", size=(24, 24)).path)
    arguments = ["preview", folder, "--out", str(tmp_path / "sheet.png"), "--samples", "2", "--views", "3"]
    done = CliRunner().invoke(seqjepa_data_app, [*arguments, "--augment", "equimod"])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * VIEW_TILE
    for extra, message in (
        (["--augment", "equimod", "--patch", "8"], "--patch 8 is for patches, --augment equimod for whole images"),
        (["--augment", "simclrr"], "there is no augmentation recipe 'simclrr'; there are: equimod"),
    ):
        refused = CliRunner().invoke(seqjepa_data_app, [*arguments, *extra])
        assert (refused.exit_code, len(refused.output.strip().splitlines())) == (2, 1)
        assert message in refused.output
