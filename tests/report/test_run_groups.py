from __future__ import annotations

import json
from dataclasses import replace

import pytest
from report_runs import SHA256_OF, protocol_of, write_run

from seqjepa.paper.published import published
from seqjepa.report.groups import Mean, accuracy, conditioning, families, groups_of, label
from seqjepa.report.match import scale_differences
from seqjepa.report.runs import RunRecord, read_record, read_records

SMALL = protocol_of("3die-synth", resolution=48)


def run(folder, recipe="3die-rot-M3", settings=(), protocol=SMALL, **scores) -> RunRecord:
    return read_record(write_run(folder, recipe, settings=settings, scores=scores, protocol=protocol, epochs=1))


def test_mean_and_sample_deviation_by_hand():
    assert Mean.of([1.0, 2.0, 6.0]) == Mean(3.0, pytest.approx(7**0.5), 3)
    assert Mean.of([0.25]) == Mean(0.25, None, 1)
    assert Mean.of([]) is None
    assert Mean(0.5, 0.1, 2).times(100) == Mean(50.0, 10.0, 2)


def test_seeds_stand_together_and_settings_apart(tmp_path):
    first = run(tmp_path / "a", settings=["seed=1"], top1_z=0.5)
    second = run(tmp_path / "b", settings=["seed=2"], top1_z=0.7)
    other = run(tmp_path / "c", settings=["optim.lr=0.1"], top1_z=0.1)
    groups = groups_of([first, other, second])
    assert [[r.name for r in group.runs] for group in groups] == [["a", "b"], ["c"]]
    assert groups[0].mean("top1_z") == Mean(0.6, pytest.approx(0.02**0.5), 2)


def test_a_run_from_before_data_set_stands_with_those_that_have_it(tmp_path):
    shards = ["data.normalisation=shards"]
    new = run(tmp_path / "new", settings=[*shards, "seed=1"])
    run(tmp_path / "old", settings=[*shards, "seed=2"])
    config = tmp_path / "old" / "config.toml"
    config.write_text(config.read_text().replace('set = "3diebench"\n', ""))
    old = read_record(tmp_path / "old")
    assert (new.config.data.set, old.config.data.set) == ("3diebench", "")
    assert len(groups_of([new, old])) == 1
    row = next(row for row in published() if row.source == "Table 1" and row.m_tr == 3)
    assert not [said for said in scale_differences(old, row) if said.startswith("set ")]


def test_kinds_of_one_name_are_told_apart_by_their_runs(tmp_path):
    groups = groups_of([run(tmp_path / "a"), run(tmp_path / "b", settings=["optim.lr=0.1"])])
    assert [group.label for group in groups] == ["seq-JEPA, M_tr 3 (a)", "seq-JEPA, M_tr 3 (b)"]


def test_other_data_or_resolution_is_another_kind(tmp_path):
    paper = run(tmp_path / "a", protocol=protocol_of())
    small = run(tmp_path / "b", protocol=protocol_of(resolution=64))
    synth = run(tmp_path / "c")
    groups = groups_of([paper, small, synth])
    assert [(group.data, group.home) for group in groups] == [
        ("3DIEBench, 128 px", "3DIEBench"),
        ("3DIEBench, 64 px", ""),
        ("3die-synth, 48 px", ""),
    ]


def test_seeds_that_were_trained_or_probed_for_less_do_not_stand_together(tmp_path):
    """Nor those of a set that is called as the paper's: a mean over them would be of nothing."""
    whole = {"settings": ["seed=1"], "scores": {"top1_z": 0.8}}
    write_run(tmp_path / "a", **whole, epochs=3)
    write_run(tmp_path / "b", settings=["seed=2"], scores={"top1_z": 0.7}, epochs=3)
    write_run(tmp_path / "stopped", settings=["seed=3"], scores={"top1_z": 0.1}, epochs=2)
    short = protocol_of(probe_epochs={"classification": 10})
    write_run(tmp_path / "short", settings=["seed=4"], scores={"top1_z": 0.1}, protocol=short, epochs=3)
    namesake = protocol_of(classes_sha256="0" * 64)
    write_run(tmp_path / "namesake", settings=["seed=5"], scores={"top1_z": 0.1}, protocol=namesake, epochs=3)
    groups = groups_of(read_records([tmp_path]))
    assert [[r.name for r in group.runs] for group in groups] == [["a", "b"], ["namesake"], ["short"], ["stopped"]]


def test_a_copy_of_a_run_is_no_second_seed(tmp_path):
    records = [run(tmp_path / name, top1_z=0.5, top1_agg={"1": 0.25}) for name in ("one", "copy")]
    (group,) = groups_of(records)
    assert group.seeds == 1
    assert group.mean("top1_z") == Mean(0.5, None, 1)
    assert group.curve("top1_agg") == {1: Mean(0.25, None, 1)}


@pytest.mark.parametrize("seed", [42, 43])
def test_runs_trained_on_other_shards_or_in_another_precision_are_neither_copies_nor_seeds(tmp_path, seed):
    """A set of the same name may hold other samples: their numbers are neither left out nor averaged."""
    one = run(tmp_path / "one", top1_z=0.5)
    more = run(tmp_path / "more", settings=[f"seed={seed}"], top1_z=0.9)
    more = replace(more, identity={"shards": {"name": "3die-synth", "train": "f" * 64}})
    half = {**SMALL, "precision": {"training": "bf16 autocast, TF32", "encoder": "fp32", "probes": "fp32"}}
    in_bf16 = run(tmp_path / "bf16", settings=[f"seed={seed}"], protocol=half, top1_z=0.7)
    groups = groups_of([one, more, in_bf16])
    assert [group.mean("top1_z") for group in groups] == [Mean(score, None, 1) for score in (0.5, 0.9, 0.7)]


def test_what_a_set_was_trained_on_is_told_by_its_classes(tmp_path):
    for name, digest in (("same", SHA256_OF["3DIEBench"]), ("other", "1" * 64)):
        folder = write_run(tmp_path / name, scores={}, trained_on="called-otherwise")
        identity = json.loads((folder / "run.json").read_text())
        identity["shards"]["classes_sha256"] = digest
        (folder / "run.json").write_text(json.dumps(identity))
    assert read_record(tmp_path / "same").paper_set == "3DIEBench"
    assert read_record(tmp_path / "other").paper_set == ""


def test_curves_are_means_over_the_seeds_that_have_the_size(tmp_path):
    a = run(tmp_path / "a", settings=["seed=1"], top1_agg={"1": 0.25, "10": 0.5})
    b = run(tmp_path / "b", settings=["seed=2"], top1_agg={"1": 0.75})
    (group,) = groups_of([a, b])
    curve = group.curve("top1_agg")
    assert list(curve) == [1, 10]
    assert (curve[1].value, curve[1].seeds, curve[10]) == (0.5, 2, Mean(0.5, None, 1))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"top1_agg": {"3": 0.3, "5": 0.5, "8": 0.8}, "top1_z": 0.1}, (5, 0.5)),
        ({"top1_agg": {"3": 0.3, "8": 0.8}}, (3, 0.3)),
        ({"top1_agg": {"7": 0.7, "8": 0.8}}, (7, 0.7)),
        ({"top1_z": 0.1}, (None, 0.1)),
        ({"top1_z_image": 0.2}, (None, 0.2)),
    ],
)
def test_accuracy_is_of_five_views_as_in_the_tables(tmp_path, scores, expected):
    (group,) = groups_of([run(tmp_path / "a", **scores)])
    found = accuracy(group)
    assert found is not None
    assert (found[0], found[1].value) == expected


def test_families_are_of_runs_as_published(tmp_path):
    members = [run(tmp_path / f"m{m}", f"stl-pls-M{m}") for m in (3, 4)]
    for name in ("stl-pls-noior-M4", "stl-pls-nosal-M4", "stl-pls-stdstem-M4", "stl-pls-noact-M4"):
        members.append(run(tmp_path / name, name))
    (family,) = families(groups_of(members), "data.context")
    assert [group.label for group in family] == ["seq-JEPA, M_tr 3", "seq-JEPA, M_tr 4"]
    told = [run(tmp_path / f"c{n}", n) for n in ("c100-crop-M2", "c100-crop-M3", "c100-all-M1", "c100-all-M2")]
    assert [len(family) for family in families(groups_of(told), "data.context")] == [2]
    assert [len(family) for family in families(groups_of(told), "data.context", "data.action")] == [4]


def test_families_differ_in_what_is_named_and_leave_ablations_out(tmp_path):
    members = [run(tmp_path / f"m{m}", f"3die-rot-M{m}") for m in (1, 2, 3)]
    ablations = [run(tmp_path / "n", "3die-noact-M3"), run(tmp_path / "d", "3die-adim16-M3")]
    (family,) = families(groups_of([*ablations, *members]), "data.context")
    assert [group.config.data.context for group in family] == [1, 2, 3]


@pytest.mark.parametrize(
    ("recipe", "name", "told"),
    [
        ("3die-noact-M3", "seq-JEPA, M_tr 3, no actions", ""),
        ("3die-rotcolour-M4", "seq-JEPA, M_tr 4, told rotation+color", "rotation+color"),
        ("c100-crop-M2", "seq-JEPA, M_tr 2, told crop", "crop"),
        ("3die-adim16-M3", "seq-JEPA, M_tr 3, action embedding 16", "rotation"),
        ("stl-pls-noior-M4", "seq-JEPA, M_tr 4, no IoR", "position"),
        ("stl-pls-stdstem-M4", "seq-JEPA, M_tr 4, standard stem", "position"),
        ("stl-pls-nosal-M4", "seq-JEPA, M_tr 4, no saliency, no IoR", "position"),
        ("c100-all-M2", "seq-JEPA, M_tr 2", "crop+jitter+blur"),
        ("byol-3die-plus", "BYOL+", ""),
        ("sie-3die-rot", "SIE", "rotation"),
    ],
)
def test_names_and_conditioning_are_the_papers(tmp_path, recipe, name, told):
    config = run(tmp_path / "a", recipe).config
    assert (label(config), conditioning(config)) == (name, told)


def test_what_is_no_number_in_a_strangers_results_is_passed_over(tmp_path):
    (group,) = groups_of([run(tmp_path / "a", top1_z=0.5, blind={"r2_indiv_x_avg": {"a": 1}, "of_mine": [1]})])
    assert group.mean("blind.r2_indiv_x_avg") is None
    assert group.curve("blind.of_mine") == group.curve("blind.r2_indiv_x_avg") == {}
    assert group.mean("top1_z").value == 0.5
