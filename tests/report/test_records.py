from __future__ import annotations

import json

import pytest
from report_runs import protocol_of, write_run

from seqjepa.report.runs import read_record, read_records
from shards.errors import DamageError, FormatError, UsageError


def test_a_record_holds_settings_numbers_and_epochs(tmp_path):
    run = write_run(tmp_path / "one", settings=["optim.epochs=30"], scores={"top1_z": 0.5})
    (run / "results-imagenet-224-patch84.json").write_text(json.dumps({"trained": {"top1_agg": {"1": 0.1}}}))
    record = read_record(run)
    assert (record.name, record.dataset, record.paper_set) == ("one", "3DIEBench", "3DIEBench")
    assert record.config.data.context == 3
    assert record.trained["top1_z"] == 0.5
    assert record.epochs_done == 30
    assert record.epochs[1]["loss"] == 0.5
    assert record.transfers == {"imagenet-224-patch84": {"trained": {"top1_agg": {"1": 0.1}}}}


def test_a_folder_stands_for_its_runs_and_each_run_comes_once(tmp_path):
    first, second = (write_run(tmp_path / "runs" / f"deeper/{name}") for name in "ba")
    write_run(tmp_path / "runs" / ".hidden")
    write_run(first / "inside")
    records = read_records([second, tmp_path / "runs"])
    assert [record.path for record in records] == [second, first]
    assert not records[0].trained


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="holds no run directories; give folders that"):
        read_records([tmp_path])
    with pytest.raises(UsageError, match="missing is not there"):
        read_records([tmp_path / "missing"])
    run = write_run(tmp_path / "one")
    (run / "results.json").write_text("[1]")
    with pytest.raises(FormatError, match="holds a list"):
        read_records([run])


def test_runs_that_have_not_begun_are_left_out_and_links_are_followed(tmp_path):
    write_run(tmp_path / "store" / "one")
    begun = write_run(tmp_path / "links" / "killed")
    (begun / "config.toml").unlink()
    (tmp_path / "links" / "linked").symlink_to(tmp_path / "store" / "one")
    assert [record.name for record in read_records([tmp_path / "links", tmp_path / "store"])] == ["one"]
    with pytest.raises(FormatError, match="has not begun; let `seqjepa train` go on"):
        read_records([begun])


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("metrics.jsonl", '{"epoch": 1}\nnonsense\n', "cannot be read"),
        ("metrics.jsonl", "5\n", "no JSON objects"),
        ("results.json", '{"trained": 5}', "not what `seqjepa evaluate` writes"),
        ("results.json", '{"trained": {"protocol": []}}', "not what `seqjepa evaluate` writes"),
        ("run.json", '{"kind": "seqjepa-run", "format": 1, "shards": 3}', "its shards: Input should be a valid"),
        ("run.json", '{"kind": "seqjepa-run"}', "it says no format"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, file, text, said):
    run = write_run(tmp_path / "run", scores={})
    (run / file).write_text(text)
    with pytest.raises((DamageError, FormatError), match=said) as caught:
        read_records([run])
    assert file in str(caught.value)


def test_of_the_runs_in_a_folder_one_that_cannot_be_read_is_left_out_and_said(tmp_path, caplog):
    for name in "abc":
        write_run(tmp_path / name, scores={})
    newer = json.loads((tmp_path / "b" / "run.json").read_text()) | {"format": 2}
    (tmp_path / "b" / "run.json").write_text(json.dumps(newer))
    assert [record.name for record in read_records([tmp_path])] == ["a", "c"]
    (said,) = caplog.messages
    assert said.startswith(f"{tmp_path / 'b'} is left out: ")
    with pytest.raises(FormatError):  # asked for by its name
        read_records([tmp_path / "a", tmp_path / "b"])
    for name in "ac":
        (tmp_path / name / "run.json").write_text(json.dumps(newer))
    with pytest.raises(FormatError):
        read_records([tmp_path])


def test_a_set_is_the_papers_by_its_classes_not_by_its_name(tmp_path):
    by_classes = {**protocol_of("3DIEBench"), "dataset": "renders-128"}
    by_name = {**protocol_of("another"), "dataset": "3DIEBench"}
    assert read_record(write_run(tmp_path / "a", scores={}, protocol=by_classes)).paper_set == "3DIEBench"
    assert read_record(write_run(tmp_path / "b", scores={}, protocol=by_name)).paper_set == ""


def test_weights_from_another_set_do_not_count_as_the_papers(tmp_path):
    run = write_run(tmp_path / "one", scores={}, protocol=protocol_of("3DIEBench"), trained_on="3die-synth")
    assert read_record(run).paper_set == ""
