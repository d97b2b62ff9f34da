"""Sets that are built in a store: the objects are a folder's files, whoever builds them and however often they die."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bucket_server import Bucket, bucket, files_of, objects_of, on_machine, serving_bucket
from shard_sets import PLAN, build, builder, sample_of

from shards.building import store_build
from shards.building.store_build import StoreBuild, staging_folder
from shards.building.workers import OvertakenError
from shards.engines.hand import Opens, hand_of
from shards.errors import FormatError, UsageError
from shards.reader import ShardSet
from shards.stats import PixelStats
from shards.stores import store_lease
from shards.stores.store import INFO, ObjectStoreFolder
from shards.stores.store_lease import Leases
from shards.stores.store_write import StoreWriter, open_writable
from shards.verify import verify

__all__ = ["bucket"]
NAMES = [f"{split}-{shard:06d}" for split, shards in PLAN.items() for shard in range(shards)]


class Killed(BaseException):
    pass


@pytest.fixture(params=["s3", "gs", "az"])
def any_bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    with serving_bucket(monkeypatch, request.param) as bucket:
        on_machine("one", tmp_path, monkeypatch)
        yield bucket


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "set"
    build(folder)
    return files_of(folder)


@pytest.mark.parametrize("flavour", ["raw", "features", "maps-log8"])
def test_the_objects_are_a_folders_files(any_bucket: Bucket, tmp_path: Path, flavour: str) -> None:
    build(tmp_path / "set", flavour)
    address = f"{any_bucket.address}/sets/one"
    info = build(address, flavour)  # type: ignore[arg-type]
    assert objects_of(any_bucket, address) == files_of(tmp_path / "set")
    assert not staging_folder(address).exists()
    assert ShardSet.open(address).info == info
    assert verify(address).ok
    writes = dict(any_bucket.writes)
    assert build(address, flavour) == info  # type: ignore[arg-type]  it is finished
    assert any_bucket.writes == writes


def test_a_shard_leaves_the_disk_when_it_is_sent(bucket: Bucket) -> None:
    address = f"{bucket.address}/one"
    with builder(address) as target:  # type: ignore[arg-type]
        for number in range(2):
            write(target, "train", number)
        root = staging_folder(address)
        assert sorted(path.stem for path in root.glob("*.tar")) == NAMES[:2]
        assert sum(512 * path.stat().st_blocks for path in root.glob("*.tar")) == 0
        assert [key for key in objects_of(bucket, address) if key.endswith(".tar")] == [f"{n}.tar" for n in NAMES[:2]]
        with pytest.raises(FormatError, match=r"s3://bucket/one is an unfinished set: run the same build"):
            ShardSet.open(address)


def write(target: Opens, split: str, number: int) -> None:
    with target.open_shard(split, number) as shard:
        for row in range(3):
            sample, pixels = sample_of(split, number, row)
            shard.add(sample, PixelStats.of(pixels, pixels // 2 * 2))


def dying(monkeypatch: pytest.MonkeyPatch, at: int, after: bool) -> None:
    """The builder's process dies before, or after, its at-th change of the store."""
    counter = itertools.count()

    def patched(original: Callable) -> Callable:
        def change(self: StoreWriter, *args: object) -> object:
            number = next(counter)
            if number == at and not after:
                raise Killed
            result = original(self, *args)
            if number == at:
                raise Killed
            return result

        return change

    for name in ("create_if_absent", "put", "delete"):
        monkeypatch.setattr(StoreWriter, name, patched(getattr(StoreWriter, name)))


EVERY = pytest.param(1, marks=pytest.mark.slow)


@pytest.mark.parametrize(("after", "moves"), list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("step", [7, EVERY])
def test_killed_at_any_change_it_goes_on(
    bucket: Bucket,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
    moves: bool,
    step: int,
) -> None:
    """On the same machine, or on another one, where the lease of the dead is waited for."""
    monkeypatch.setattr(store_lease, "LEASE_SECONDS", 0.0)
    for at in itertools.count(2 * after + moves, step):
        address = f"{bucket.address}/set-{at}"
        on_machine("one", tmp_path, monkeypatch)
        with monkeypatch.context() as patch:
            dying(patch, at, after)
            patch.setattr(store_lease, "_leave", lambda ours, pid: ours.ended.set())  # the dead give nothing up
            try:
                build(address)  # type: ignore[arg-type]
            except Killed:
                done = False
            else:
                done = True
        if done:
            break
        there = objects_of(bucket, address)
        if INFO in there:
            assert {name: there[name] for name in whole} == whole
        else:
            with pytest.raises(FormatError):
                ShardSet.open(address)
        if moves:
            on_machine("two", tmp_path, monkeypatch)
        finish(address)
        assert objects_of(bucket, address) == whole, at
    assert at >= 4 * len(NAMES)


def finish(address: str) -> None:
    """As build, with what others claim asked for again."""
    with builder(address) as target:  # type: ignore[arg-type]
        while not target.complete and not target.done().issuperset(NAMES):
            for name in target.claims(NAMES):
                split, _, number = name.partition("-")
                write(target, split, int(number))
        if not target.complete:
            target.finish({"command": "tests"})


def test_two_machines_share_the_shards(
    bucket: Bucket, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{bucket.address}/shared"
    one = builder(address)  # type: ignore[arg-type]
    on_machine("two", tmp_path, monkeypatch)
    two = builder(address)  # type: ignore[arg-type]
    assert one.layout.root != two.layout.root
    ours = next(one.claims(NAMES))
    theirs = list(two.claims(NAMES))
    assert [ours, *theirs] == NAMES
    assert list(one.claims(NAMES[1:])) == []
    for target, names in ((one, [ours]), (two, theirs)):
        for name in names:
            split, _, number = name.partition("-")
            write(target, split, int(number))
    assert one.done() == two.done() == set(NAMES)
    two.finish({"command": "tests"})
    assert objects_of(bucket, address) == whole
    one.done()
    assert one.overtaken
    one.close()
    two.close()
    assert max(count for key, count in bucket.writes.items() if key.endswith(".tar")) == 1
    assert objects_of(bucket, address) == whole


def test_what_is_there_is_never_overwritten(bucket: Bucket) -> None:
    address = f"{bucket.address}/one"
    build(address)  # type: ignore[arg-type]
    before = dict(bucket.objects)
    with pytest.raises(UsageError, match=r"s3://bucket/one holds .* \(seed: 0 there, 1 here\): choose another a"):
        build(address, seed=1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nothing in a store is overwritten"):
        build(address, seed=1, overwrite=True)  # type: ignore[arg-type]
    bucket.put("two/_meta/dataset.json", b"{}", create=True)
    with pytest.raises(FormatError, match=r"dataset\.json"):
        build(f"{bucket.address}/two")  # type: ignore[arg-type]
    del bucket.objects["two/_meta/dataset.json"]
    assert bucket.objects == before


def test_a_place_with_other_things_is_refused(any_bucket: Bucket) -> None:
    any_bucket.put("mine/notes.txt", b"keep", create=True)
    with pytest.raises(UsageError, match=r"holds other objects, e\.g\. notes\.txt, and no shard set: choose another"):
        build(f"{any_bucket.address}/mine")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"holds other objects, e\.g\. mine/notes\.txt"):
        build(any_bucket.address)  # type: ignore[arg-type]
    assert any_bucket.objects == {"mine/notes.txt": b"keep"}


def test_of_two_who_wrote_a_shard_the_first_counts(
    bucket: Bucket, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's bytes may differ from another's: a part and a tar of two builders would be a damaged set."""
    address = f"{bucket.address}/twice"
    one = builder(address)  # type: ignore[arg-type]
    slow = one.open_shard("train", 0)
    on_machine("two", tmp_path, monkeypatch)
    monkeypatch.setattr(store_lease, "LEASE_SECONDS", -1.0)  # the first has not been heard of
    with builder(address) as two:  # type: ignore[arg-type]
        while not list(two.claims(["train-000000"])):
            pass
        write(two, "train", 0)
    part = bucket.objects["twice/_meta/parts/train-000000.parquet"]
    sample, pixels = sample_of("train", 5, 0)
    slow.add(sample, PixelStats.of(pixels, pixels))
    slow.close()
    assert bucket.objects["twice/_meta/parts/train-000000.parquet"] == part
    assert "train-000000" in one.done()
    one.close()
    finish(address)
    assert objects_of(bucket, address) == whole


def test_a_hand_sends_from_its_own_machine(
    bucket: Bucket, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a node of a Ray cluster, which sees no folder of the builder's."""
    address = f"{bucket.address}/hands"
    with builder(address) as target:  # type: ignore[arg-type]
        for name in target.claims(NAMES):
            split, _, number = name.partition("-")
            hand = pickle.loads(pickle.dumps(hand_of(target)))
            with monkeypatch.context() as patch:
                on_machine("node", tmp_path, patch)
                with hand.open() as opened:
                    write(opened, split, int(number))
                assert not [path for path in (tmp_path / "node").rglob("*") if path.is_file()]
            target.adopt(opened.parts[0])
            assert name in target.done()
        target.finish({"command": "tests"})
    assert objects_of(bucket, address) == whole


def test_who_comes_when_all_is_done_leaves_nothing(
    bucket: Bucket, whole: dict[str, bytes], tmp_path: Path, monkeypatch
) -> None:
    address = f"{bucket.address}/late"
    late = builder(address)  # type: ignore[arg-type]
    on_machine("two", tmp_path, monkeypatch)
    finish(address)
    monkeypatch.setattr(store_build, "LOOK_SECONDS", 60.0)
    late.store._look_after = 1e12  # type: ignore[union-attr]  it has not looked since
    with pytest.raises(OvertakenError):
        list(late.claims(NAMES))
    late.close()
    assert objects_of(bucket, address) == whole


def test_a_build_under_way_of_another_set_is_refused(bucket: Bucket) -> None:
    address = f"{bucket.address}/one"
    with builder(address) as target:  # type: ignore[arg-type]
        write(target, "train", 0)
    with pytest.raises(UsageError, match="seed: 0 there, 1 here"):
        builder(address, seed=1)  # type: ignore[arg-type]


def test_what_was_deleted_in_the_store_is_made_again(bucket: Bucket, whole: dict[str, bytes]) -> None:
    """What lies in the cache then stands for shards that are nowhere."""
    address = f"{bucket.address}/one"
    with builder(address) as target:  # type: ignore[arg-type]
        write(target, "train", 0)
    bucket.objects.clear()
    build(address)  # type: ignore[arg-type]
    assert objects_of(bucket, address) == whole


def test_a_place_to_build_is_one_for_all_spellings() -> None:
    assert staging_folder("s3://bucket/set") == staging_folder("s3://bucket/set/")
    assert store_build.made_in(Path("s3://bucket/set")) == staging_folder("s3://bucket/set")
    assert StoreBuild("s3://bucket/set/").address == "s3://bucket/set"


def test_a_lease_is_one_holders_and_goes_to_the_next_when_that_is_gone(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_lease, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(store_lease, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(store_lease, "BEAT_SECONDS", 0.02)
    store = open_writable(f"{bucket.address}/here")
    first, second = Leases(store, "", "node1:/a"), Leases(store, "", "node2:/b")
    assert first.wait_for("it") == ""
    assert second.wait_for("it") == "node1:/a"  # which writes it again
    assert (first.holder("it"), second.holder("it")) == ("", "node1:/a")
    first._ours.ended.set()  # its machine sleeps
    first._thread.join()
    monkeypatch.setattr(store_lease, "LEASE_SECONDS", 0.0)
    assert second.wait_for("it") == ""
    assert first.holder("it") == "node2:/b"
    first.release("it")  # not its own any more
    first.leave()
    assert set(bucket.objects) == {"here/it"}
    again = Leases(store, "", "node2:/b")  # the same place: whoever was there before is known to be gone
    assert again.take("it")
    assert second.holder("it") == "node2:/b"
    second.leave()
    again.leave()
    assert not bucket.objects


class Interposed:
    """Before the number-th request of a store by this process, `act` is done once, whose own requests do not count."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
        self._left, self._act, self.acted = number, act, False
        for owner, name in (
            *((StoreWriter, name) for name in ("create_if_absent", "put", "names", "any_name", "tag", "delete")),
            (ObjectStoreFolder, "read"),
        ):
            patch.setattr(owner, name, self._asked(getattr(owner, name)))

    def _asked(self, original: Callable) -> Callable:
        def ask(*args: object) -> object:
            self._left -= 1
            if self._left < 0 and not self.acted:
                self.acted = True
                self._act()
            return original(*args)

        return ask


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("other", ["one", "two"])
@pytest.mark.parametrize("step", [3, EVERY])
def test_builders_that_begin_together(
    bucket: Bucket,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other: str,
    ends: bool,
    step: int,
) -> None:
    """Between any two requests of a builder that begins, another begins, and may end, on the same machine or not."""
    for number in itertools.count((ends + 2 * (other == "two")) % step, step):
        address, others = f"{bucket.address}/set-{number}", []

        def begin(address: str = address, others: list = others) -> None:
            on_machine(other, tmp_path, monkeypatch)
            others.append(builder(address))  # type: ignore[arg-type]
            write(others[0], "train", 0)
            if ends:
                finish(address)
                others[0].close()
            on_machine("one", tmp_path, monkeypatch)

        with monkeypatch.context() as patch:
            between = Interposed(patch, number, begin)
            try:
                late = builder(address)  # type: ignore[arg-type]
            except OvertakenError:
                late = None  # it would look again
        if not between.acted:
            break
        if late and not late.complete and not ends:
            for name in late.claims(NAMES):
                split, _, shard = name.partition("-")
                write(late, split, int(shard))
            assert late.done() == set(NAMES)
            late.finish({"command": "tests"})
        if late:
            late.close()
        others[0].close()
        assert builder(address).complete  # type: ignore[arg-type]  who comes last clears up
        assert objects_of(bucket, address) == whole, number
        assert not staging_folder(address).exists()
    assert number > 6


@pytest.mark.parametrize("number", range(6))
def test_a_place_that_is_taken_back_while_another_comes(
    bucket: Bucket, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Who found bad input goes; at any moment of that another one, which bears more, has begun and claims a shard."""
    address = f"{bucket.address}/one"
    first = builder(address)  # type: ignore[arg-type]
    first.close()
    on_machine("two", tmp_path, monkeypatch)
    second = builder(address)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        between = Interposed(patch, number, lambda: next(second.claims(["train-000000"])))
        StoreBuild(address).take_back()
    if not between.acted:
        assert next(second.claims(["train-000000"]))
    assert "_meta/build.json" in objects_of(bucket, address)
    write(second, "train", 0)
    second.close()
    finish(address)
    assert objects_of(bucket, address) == whole
