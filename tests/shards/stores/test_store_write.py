"""Objects written to each kind of store: created once, replaced, listed, deleted; sets pushed and read again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bucket_server import Bucket, serving_bucket
from shard_sets import build

from shards.errors import FailureError, UsageError
from shards.push.store_push import push_to_store
from shards.reader import ShardSet
from shards.stores import cache
from shards.stores.store_write import open_writable
from shards.verify import verify


@pytest.fixture(params=["s3", "gs", "az"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with serving_bucket(monkeypatch, request.param) as bucket:
        yield bucket


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with serving_bucket(monkeypatch) as bucket:
        yield bucket


def test_an_object_is_created_once(bucket: Bucket) -> None:
    store = open_writable(f"{bucket.address}/runs/a")
    assert store.create("parts/one.bin", b"123") is True
    assert store.create("parts/one.bin", b"123") is False
    with pytest.raises(UsageError, match=r"one\.bin is there and is of another set; choose another address"):
        store.create("parts/one.bin", b"124")
    assert store.create_if_absent("parts/one.bin", b"other") is False
    assert bucket.objects == {"runs/a/parts/one.bin": b"123"}


def test_objects_are_replaced_listed_and_deleted(bucket: Bucket) -> None:
    store = open_writable(f"{bucket.address}/runs/a")
    store.put("parts/one.bin", b"123")
    before = store.tag("parts/one.bin")
    store.put("parts/one.bin", b"4567")
    assert store.tag("parts/one.bin") != before
    assert store.folder.read("parts/one.bin", 9) == b"4567"
    store.put("two", b"")
    bucket.objects["runs/ab"] = b"a neighbour's"
    assert store.names() == {"parts/one.bin": 4, "two": 0}
    assert store.names("parts") == {"parts/one.bin": 4}
    store.delete(["two", "not there"])
    assert sorted(bucket.objects) == ["runs/a/parts/one.bin", "runs/ab"]
    assert store.tag("two") is None


def test_a_set_is_pushed_and_read_again(bucket: Bucket, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    cache._mirror.cache_clear()
    build(tmp_path / "set")
    push_to_store(tmp_path / "set", f"{bucket.address}/sets/one", progress=False)
    there = f"{bucket.address}/sets/one"
    assert ShardSet.open(there).info == ShardSet.open(tmp_path / "set").info
    assert verify(there).ok


def test_a_put_whose_answer_was_lost_is_no_other_set(s3: Bucket) -> None:
    """Tried again, it finds its own object."""
    store = open_writable(s3.address)
    s3.fail_puts, s3.lost = 1, True
    assert store.create("one", b"123") is False
    assert s3.objects == {"one": b"123"}


def test_a_store_that_is_down_is_one_line(s3: Bucket, monkeypatch) -> None:
    store = open_writable(s3.address)
    store.names()
    s3.fail_puts = 1000
    with pytest.raises(FailureError, match=r"cannot write s3://bucket/one: .*the same command goes on$") as said:
        store.put("one", b"123")
    assert "\n" not in str(said.value)
    assert not s3.objects


def test_what_cannot_be_looked_at_is_not_said_to_be_written(s3: Bucket, monkeypatch) -> None:
    import obstore
    from obstore.exceptions import GenericError, PermissionDeniedError

    def fails(error: Exception):
        def call(*_: object, **__: object) -> None:
            raise error

        return call

    store = open_writable(s3.address)
    monkeypatch.setattr(obstore, "head", fails(GenericError("no route")))
    with pytest.raises(FailureError, match=r"^cannot read s3://bucket/one: .*; try again later$"):
        store.tag("one")
    monkeypatch.setattr(obstore, "list", fails(PermissionDeniedError("403")))
    for look in (store.names, store.any_name):
        with pytest.raises(UsageError, match=r"^s3://bucket/\* may not be read with these credentials; see docs"):
            look()


@pytest.mark.parametrize("address", ["https://example.org/set", "hf://datasets/user/set"])
def test_what_can_only_be_read_says_so(address: str) -> None:
    with pytest.raises(UsageError, match="can be read only; what can be written to begins with s3://, gs://, az://"):
        open_writable(address)
