from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from augmentation_actions import augmentation_actions

from seqjepa.data.actions import AUGMENTATION_COLUMNS, PRESETS, is_augmentation
from seqjepa.data.augment.parameters import (
    FROZEN,
    Scaling,
    constants_for,
    draw_parameters,
    estimate_constants,
    stored_scaling,
)
from seqjepa.data.augment.recipes import RECIPES, build_recipe
from shards.errors import ConfigError, FormatError
from shards.schema import DatasetInfo, ViewSpec

PARAMS = torch.rand(5, 4, 9, generator=torch.Generator().manual_seed(0))
SCALING = Scaling(tuple(float(k) for k in range(9)), tuple(float(k) for k in range(1, 10)))


def test_frozen_constants_are_those_of_the_stream():
    for (recipe, height, width), frozen in FROZEN.items():
        params = draw_parameters(recipe, range(20_000), 2, height=height, width=width, seed=99, epoch=1)
        values = params.vector().flatten(0, 1).double().numpy()
        std = np.array(frozen.std)
        assert np.abs((values.mean(0) - frozen.mean) / std).max() < 0.03
        assert np.abs(values.std(0) / std - 1).max() < 0.03


def test_frozen_constants_are_near_published_ones_for_the_same_family():
    """EquiMod's for 32 px (ADevillers/EquiMod@5c936cf src/main.py:85-89); it drew blur and saturation differently."""
    frozen = FROZEN[RECIPES["equimod"], 32, 32]
    mean = np.array([4.3122, 4.3216, 23.369, 23.374, 1.0, 1.0, 0.0])
    std = np.array([3.9740, 3.9851, 4.9544, 4.9539, 0.2066, 0.2068, 0.0517])
    same = [0, 1, 2, 3, 4, 5, 7]
    assert np.abs((np.array(frozen.mean)[same] - mean) / std).max() < 0.01
    assert np.abs(np.array(frozen.std)[same] / std - 1).max() < 0.01


def test_constant_parameters_have_a_std_of_one():
    none = estimate_constants(RECIPES["none"], 32, 32, n=100)
    assert none.std == (1.0,) * 9
    assert none.mean == (0.0, 0.0, 32.0, 32.0, 1.0, 1.0, 1.0, 0.0, 0.0)
    unblurred = build_recipe("equimod", {"blur": 0.0}, {"blur": 0.0})
    params = draw_parameters(unblurred, range(50), 3, height=32, width=32, seed=0, epoch=0).vector()
    scaling = estimate_constants(unblurred, 32, 32, n=1000)
    for way in (scaling, None):
        actions = augmentation_actions(params, "augmentation", way)
        assert actions.isfinite().all()
        assert (actions[..., 8] == 0).all()


def test_zscores_are_differenced():
    actions = augmentation_actions(PARAMS, "augmentation", SCALING)
    expected = (PARAMS[:, 1:] - PARAMS[:, :-1]) / torch.arange(1.0, 10)
    assert actions.shape == (5, 3, 9)
    assert torch.allclose(actions, expected, atol=1e-6)
    kinds = {kind: spec.columns for kind, spec in PRESETS.items() if is_augmentation(spec)}
    assert list(kinds) == ["crop", "jitter", "blur", "augmentation"]
    for kind, columns in kinds.items():
        part = [AUGMENTATION_COLUMNS.index(name) for name in columns]
        assert torch.equal(augmentation_actions(PARAMS, kind, SCALING), actions[..., part])


def test_author_mode_divides_by_the_norm_over_views():
    params = PARAMS.clone()
    params[0, :, 8] = 0.0
    params[1, :, 7] = torch.tensor([0.001, -0.001, 0.0, 0.0])
    actions = augmentation_actions(params, "augmentation", None)
    for b in range(5):
        for k in range(9):
            column = params[b, :, k].double().numpy()
            norm = np.sqrt((column**2).sum()) or 1.0
            assert np.allclose(actions[b, :, k], np.diff(column / norm), atol=1e-6)
    assert actions[1, 0, 7] == pytest.approx(-(2**0.5), rel=1e-5)  # scale-free: docs/fidelity.md #22


def test_other_recipes_and_sizes_are_estimated_the_same_every_time():
    recipe = build_recipe("equimod", {"saturation": 0.4})
    assert constants_for(recipe, 48, 48) == estimate_constants(recipe, 48, 48)
    assert constants_for(recipe, 48, 48).std[6] > 1.3 * FROZEN[RECIPES["equimod"], 32, 32].std[6]
    assert constants_for(RECIPES["equimod"], 32, 32) is FROZEN[RECIPES["equimod"], 32, 32]


def test_bad_constants_and_kinds_are_refused():
    with pytest.raises(ConfigError, match="finite means and stds for: crop_top"):
        Scaling((0.0,) * 9, (1.0,) * 8)
    with pytest.raises(ConfigError, match="finite"):
        Scaling((float("nan"),) * 9, (1.0,) * 9)
    with pytest.raises(ConfigError, match=r"std of 0\.0"):
        Scaling((0.0,) * 9, (0.0,) * 9)
    with pytest.raises(ConfigError, match=r"there is no action 'flip'; there are: .*, crop, jitter, blur"):
        augmentation_actions(PARAMS, "flip", SCALING)


def info_with(augmenting: object) -> DatasetInfo:
    spec = ViewSpec(2, 8, 8, "raw", (), sequence=2)
    fingerprint = {"augmenting": json.loads(json.dumps(augmenting))}
    return DatasetInfo("set", spec, (), {}, {}, "", fingerprint)


def test_constants_survive_json():
    scaling = constants_for(RECIPES["equimod"], 20, 20)
    assert stored_scaling(info_with({"scaling": scaling.as_json()})) == scaling
    assert stored_scaling(replace(info_with({}), fingerprint={})) is None


@pytest.mark.parametrize(
    "noted",
    [
        {},
        [],
        {"scaling": 3},
        {"scaling": {"mean": [0] * 9}},
        {"scaling": {"mean": [0] * 9, "std": "1" * 8}},
        {"scaling": {"mean": [0] * 9, "std": ["x"] * 9}},
        {"scaling": {"mean": [0] * 9, "std": [[1]] * 9}},
        {"scaling": {"mean": [0] * 9, "std": [10**400] * 9}},
        {"scaling": {"mean": [1e9] * 9, "std": [1] * 9}},
        {"scaling": {"mean": [0] * 9, "std": [1e-9] * 9}},
        {"scaling": {"mean": [0] * 9, "std": [-1] * 9}},
        {"scaling": {"mean": [0] * 9, "std": [float("inf")] * 9}},
    ],
)
def test_constants_that_are_none_are_refused(noted):
    with pytest.raises(FormatError, match=r"set: the scaling of its augmentation parameters is unusable .*bake"):
        stored_scaling(info_with(noted))


def test_actions_of_a_sample_do_not_depend_on_the_others():
    """To the bit, so that baked sets, planned many samples at once, train as batches made on the fly do."""
    params = torch.rand(4096, 3, 9, generator=torch.Generator().manual_seed(1))
    for scaling in (SCALING, None):
        whole = augmentation_actions(params, "augmentation", scaling)
        for size in (1, 5, 8, 100):
            assert torch.equal(augmentation_actions(params[:size], "augmentation", scaling), whole[:size])
