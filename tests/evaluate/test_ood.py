from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.metrics import r2_score
from small_cases import case_of_run
from small_runs import CLASSES, SIZE, sample

from seqjepa.evaluate.heads import predict
from seqjepa.evaluate.ood import OOD, labels_by_name, open_ood
from seqjepa.evaluate.probe_training import fit_and_score
from seqjepa.evaluate.run import evaluate_run
from seqjepa.evaluate.studies import EvalContext
from seqjepa.evaluate.tasks import tasks_for
from seqjepa.paper.metrics import ROWS
from shards.errors import ConfigError
from shards.reader import ShardSet
from shards.schema import THREE_DIEBENCH_PARAMS, ParamField, ViewSpec
from shards.writer import SetBuilder

SHUFFLED = ("red", "blue", "green")
KEYS = ["top1_z", *(f"r2_{n}_rot_{k}" for n in ("rel", "indiv") for k in ("avg", "pool")),
        *(f"{n}_rot_{k}" for n in ("rel", "indiv") for k in ("deg", "deg_median"))]  # fmt: skip


def ood_shards(
    out: Path,
    classes: tuple[str, ...] = CLASSES,
    splits: tuple[str, ...] = ("ood",),
    params: tuple[ParamField, ...] = THREE_DIEBENCH_PARAMS,
    views: int = 6,
) -> Path:
    """18 of the objects that the ID set has for validation, views rotated by more than 90°; labels by `classes`."""
    rng = np.random.default_rng(5)
    spec = ViewSpec(6, SIZE, SIZE, "jpeg", params)
    with SetBuilder(out, name="other", spec=spec, classes=classes, fingerprint={"by": "test"}) as builder:
        for split in splits:
            with builder.open_shard(split, 0) as writer:
                for number in range(18):
                    made, stats = sample(number, rng)
                    made.params[:, :3] = rng.uniform(np.pi / 2, np.pi, (len(made.params), 3))
                    few = slice(views)
                    label = classes.index(CLASSES[number % 3]) if set(CLASSES) <= set(classes) else 0
                    writer.add(
                        replace(
                            made, views=made.views[few], view_ids=made.view_ids[few], label=label,
                            params=made.params[few, : len(params)],
                        ),
                        stats,
                    )  # fmt: skip
        builder.finish({"command": "test"})
    return out


@pytest.fixture(scope="module")
def ood(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet.open(ood_shards(tmp_path_factory.mktemp("ood") / "shards"))


def probed(case: EvalContext) -> EvalContext:
    for measure in tasks_for(case.can, case.config)[0]:
        fit_and_score(measure, case.bench)
    return case


def test_the_heads_of_the_id_numbers_are_shown_the_ood_set(run, shards, ood):
    case = probed(case_of_run(run, shards, ood=ood, val_draws=2))
    heads = {name: {k: v.clone() for k, v in head.state_dict().items()} for name, head in case.bench.heads.items()}
    found = OOD.take(case)
    scores = found["ood"]
    assert sorted(scores) == sorted([*KEYS, "top1_agg", "objects"])
    assert list(scores["top1_agg"]) == ["1", "2", "4"]
    assert scores["objects"] == 18
    assert set(found["intervals"]["ood"]) >= {"top1_z", "top1_agg", "r2_rel_rot_avg"}
    for name, state in heads.items():
        assert all(torch.equal(value, case.bench.heads[name].state_dict()[key]) for key, value in state.items())
    keys = {f"ood.{key}" for key in KEYS} | {"ood.top1_agg"}
    assert keys == {key for key in ROWS if key.startswith("ood.")}


def test_without_a_head_of_the_id_numbers_there_is_no_accuracy(run, shards, ood):
    case = case_of_run(run, shards, ood=ood)
    one_class = replace(case.bench.val, labels=torch.zeros_like(case.bench.val.labels))
    scores = OOD.take(probed(replace(case, bench=replace(case.bench, val=one_class))))["ood"]
    assert "r2_rel_rot_avg" in scores
    assert not {"top1_z", "top1_agg"} & scores.keys()


def test_numbers_are_those_of_the_head_on_the_views(run, shards, ood):
    """By hand: pixels from the shards through the encoder, scipy's quaternions, scikit-learn's R²."""
    case = probed(case_of_run(run, shards, ood=ood))
    scores = OOD.take(case)["ood"]
    index = ood.split("ood")
    first = _first_views(case, 18, index.n_views)
    pixels = torch.from_numpy(np.stack([index.read_view(i, int(v)) for i, v in enumerate(first)])).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (case.loaded.data.mean, case.loaded.data.std))
    with torch.no_grad():
        z = case.loaded.method.embed((pixels / 255 - mean) / std)
    logits = predict(case.bench.heads["top1_z"], z)
    assert scores["top1_z"] == (logits.argmax(1).numpy() == index.labels).mean()
    angles = index.params[np.arange(18), first][:, :3].astype(np.float64)
    wanted = Rotation.from_euler("xyz", angles).as_quat()
    given = predict(case.bench.heads["r2_indiv_rot"], z).numpy()
    assert scores["r2_indiv_rot_avg"] == pytest.approx(r2_score(wanted, given), abs=1e-4)
    turned = Rotation.from_quat(wanted).inv() * Rotation.from_quat(given)
    assert scores["indiv_rot_deg"] == pytest.approx(np.degrees(turned.magnitude()).mean(), abs=1e-2)


def _first_views(case: EvalContext, objects: int, n_views: np.ndarray) -> np.ndarray:
    from seqjepa.data.draws import Purpose, choose_distinct, draw_u32

    numbers = draw_u32(case.bench.seed, 0, Purpose.EVALUATION, np.arange(objects), 1)
    return choose_distinct(n_views.astype(np.int64), numbers)[:, 0]


def test_classes_are_matched_by_name(run, shards, ood, tmp_path):
    other = ShardSet.open(ood_shards(tmp_path / "shuffled", classes=(*SHUFFLED, "never used")))
    assert list(other.split("ood").labels) != list(ood.split("ood").labels)
    case = probed(case_of_run(run, shards, ood=ood))
    assert OOD.take(replace(case, ood=other)) == OOD.take(case)


def test_no_label_stays_no_label(shards, ood):
    assert labels_by_name(np.array([2, -1, 0]), ood, ShardSet.open(shards)).tolist() == [2, -1, 0]


def test_few_views_leave_the_sizes_that_there_are_views_for(run, shards, ood, tmp_path):
    few = ShardSet.open(ood_shards(tmp_path / "few", views=2))
    case = probed(case_of_run(run, shards, ood=few))
    scores = OOD.take(case)["ood"]
    assert list(scores["top1_agg"]) == ["1", "2"]
    assert "r2_rel_rot_avg" in scores
    single = OOD.take(replace(case, ood=ShardSet.open(ood_shards(tmp_path / "single", views=1))))["ood"]
    assert list(single["top1_agg"]) == ["1"]
    assert "r2_rel_rot_avg" not in single
    assert "r2_indiv_rot_avg" in single


def test_a_head_for_more_sizes_says_the_same_of_fewer(run, shards, ood):
    case = probed(case_of_run(run, shards, ood=ood))
    all_sizes = OOD.take(case)["ood"]["top1_agg"]
    fewer = replace(case, can=replace(case.can, most_views=2))
    fewer.bench.heads.update(case.bench.heads)
    assert OOD.take(fewer)["ood"]["top1_agg"] == {size: all_sizes[size] for size in ("1", "2")}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"classes": ("mauve",)}, r"classes that .* has not"),
        ({"splits": ("a", "b")}, "splits a, b.*'ood'"),
        ({"params": THREE_DIEBENCH_PARAMS[:2]}, "has no rot_z"),
    ],
)
def test_sets_that_do_not_fit_are_one_line(shards, tmp_path, made, said):
    other = ShardSet.open(ood_shards(tmp_path / "other", **made))
    with pytest.raises(ConfigError, match=said) as caught:
        open_ood(ShardSet.open(shards), other)
    assert "\n" not in str(caught.value)


def test_views_of_another_size_are_refused(shards, ood):
    stored = ShardSet.open(shards)
    spec = stored.info.spec
    assert isinstance(spec, ViewSpec)
    larger = replace(stored, info=replace(stored.info, spec=replace(spec, height=32, width=32)))
    with pytest.raises(ConfigError, match=r"16×16.*32×32"):
        open_ood(larger, ood)


def test_an_evaluation_with_an_ood_set(run, shards, ood, tmp_path):
    results = evaluate_run(run, shards, ood=ood.path, device="cpu", m_val=(1, 2), probe_epochs=3, progress=False)
    assert set(results["ood"]) > set(KEYS)
    assert results["ood"].keys() >= results["intervals"]["ood"].keys()
    assert results["protocol"]["ood"] == "other"
    unfit = ood_shards(tmp_path / "unfit", classes=("mauve",))
    before = (run / "results.json").read_bytes()
    with pytest.raises(ConfigError, match="mauve"):
        evaluate_run(run, shards, ood=unfit, device="cpu", progress=False)
    assert (run / "results.json").read_bytes() == before


def test_images_are_no_ood_set(shards, saccade_shards):
    views, images = ShardSet.open(shards), ShardSet.open(saccade_shards)
    for stored, other in ((views, images), (images, views)):
        with pytest.raises(ConfigError, match=rf"{images.path} holds saliency shards"):
            open_ood(stored, other)


def test_the_only_split_will_do(shards, tmp_path):
    other = ShardSet.open(ood_shards(tmp_path / "other", splits=("val",)))
    assert open_ood(ShardSet.open(shards), other).name == "val"


def test_why_not(run, shards, ood):
    case = case_of_run(run, shards)
    assert OOD.why_not(case) == "no OOD shards were named: --ood SHARDS"
    assert OOD.why_not(replace(case, ood=ood)) == ""
    train = replace(case.splits.train, param_names=("a", "b", "c", "d", "e", "f", "g"))
    assert (
        OOD.why_not(replace(case, ood=ood, splits=replace(case.splits, train=train))) == "the samples have no rotations"
    )
