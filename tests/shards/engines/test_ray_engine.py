"""Work over several Ray nodes: everything is done once as far as a caller sees, whatever is lost on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from ray_nodes import Nodes, ray_nodes

from shards.engines import ray_engine, ray_node
from shards.engines.ray_engine import RayCluster, ray_cluster
from shards.engines.ray_node import Setting
from shards.errors import FailureError, UsageError

pytestmark = pytest.mark.tools


def named(item: int) -> str:
    return f"item {item}"


def square(item: int) -> int:
    return item * item


def squares(items: Sequence[int]) -> list[tuple[int, int]]:
    """→ square, and how many items were with it"""
    return [(item * item, len(items)) for item in items]


def where(item: int, seconds: float = 0.3) -> tuple[int, str]:
    import ray

    time.sleep(seconds)
    return item, ray.get_runtime_context().get_node_id()


def refuse_three(item: int) -> int:
    if item == 3:
        raise UsageError("no threes")
    return item


def divide(item: int) -> int:
    return 1 // (item - 3)


def die_at_three(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def die_once(item: int, folder: Path) -> int:
    if item == 3 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def relative(item: int) -> str:
    return Path("here.txt").read_text()


def counting(folder: Path) -> Callable[[int], tuple[int, int]]:
    """As a worker that loads a model: → item, and in which process."""
    (folder / f"made-{os.getpid()}").touch()
    return lambda item: (item, os.getpid())


def slowly(folder: Path) -> Callable[[int], tuple[int, str]]:
    return where


def refusing() -> Callable[[int], int]:
    raise UsageError("the weights are missing")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(3) as nodes:
        yield nodes


@pytest.fixture
def cluster(nodes: Nodes) -> Iterator[RayCluster]:
    with ray_cluster(nodes.address) as cluster:
        yield cluster


def test_every_item_is_done_by_many_nodes(cluster: RayCluster) -> None:
    found = list(cluster.map_tasks(where, range(12), named))
    assert sorted(item for item, _ in found) == list(range(12))
    assert len({node for _, node in found}) == 3


def test_nodes_share_items_and_results_keep_their_order(cluster: RayCluster) -> None:
    assert ray_engine.spread(squares, range(50), "squares") == [(i * i, 50) for i in range(50)]
    token = ray_engine.CLUSTER.set(cluster)
    try:
        found = ray_engine.spread(squares, range(50), "squares")
        assert ray_engine.spread(squares, [], "squares") == []
    finally:
        ray_engine.CLUSTER.reset(token)
    assert [square for square, _ in found] == [i * i for i in range(50)]
    assert max(together for _, together in found) < 50


def test_no_more_items_are_read_than_there_is_room_for(cluster: RayCluster) -> None:
    read: list[int] = []

    def reading() -> Iterator[int]:
        for item in range(30):
            read.append(item)
            yield item

    for done, _ in enumerate(cluster.map_tasks(partial(where, seconds=0.01), reading(), named), 1):
        assert len(read) - done <= 5
    big = cluster.map_tasks(len, (bytes(30 << 20) for _ in range(8)), lambda _: "bytes", len)
    assert list(big) == [30 << 20] * 8


def test_errors_of_ours_come_as_they_are_and_others_name_the_item(cluster: RayCluster) -> None:
    with pytest.raises(UsageError, match="no threes"):
        list(cluster.map_tasks(refuse_three, range(6), named))
    with pytest.raises(FailureError, match=r"item 3 on node .*: ZeroDivisionError"):
        list(cluster.map_tasks(divide, range(6), named))


def test_a_worker_that_is_killed_is_replaced(cluster: RayCluster, tmp_path: Path) -> None:
    assert sorted(cluster.map_tasks(partial(die_once, folder=tmp_path), range(6), named)) == list(range(6))
    assert (tmp_path / "died").exists()


def test_an_item_that_kills_every_worker_ends_it(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "RETRIES", 1)
    with pytest.raises(FailureError, match="item 3 was begun 2 times and its worker was lost"):
        list(cluster.map_tasks(die_at_three, range(6), named))


def test_relative_paths_mean_what_they_mean_to_the_command(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.txt").write_text("found")
    monkeypatch.chdir(tmp_path)
    with ray_cluster(nodes.address) as cluster:
        assert list(cluster.map_tasks(relative, range(2), named)) == ["found"] * 2


def test_a_node_with_other_versions_is_named(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Setting(os.getcwd(), {**ray_node._versions(), "simplejpeg": "0.1"})
    monkeypatch.setattr(Setting, "of_here", lambda: other)
    with ray_cluster(nodes.address) as cluster, pytest.raises(UsageError, match=r"the command simplejpeg 0\.1"):
        list(cluster.map_tasks(square, range(2), named))


def test_actors_make_what_they_need_once(cluster: RayCluster, tmp_path: Path) -> None:
    found = list(cluster.map_actors(partial(counting, tmp_path), range(9), named))
    assert sorted(item for item, _ in found) == list(range(9))
    assert {pid for _, pid in found} <= {int(path.name[5:]) for path in tmp_path.glob("made-*")}
    assert 1 <= len(list(tmp_path.glob("made-*"))) <= 3
    with pytest.raises(UsageError, match="the weights are missing"):
        list(cluster.map_actors(refusing, range(3), named))
    with pytest.raises(UsageError, match="the Ray cluster has no GPU"):
        list(cluster.map_actors(refusing, range(3), named, gpus=1))


def test_nobody_answers() -> None:
    with pytest.raises(UsageError, match="no Ray cluster answers at"), ray_cluster("127.0.0.1:1"):
        pass


def test_a_lost_nodes_items_are_done_by_others() -> None:
    with ray_nodes(3) as nodes, ray_cluster(nodes.address) as cluster:
        results, found = cluster.map_tasks(where, range(15), named), []
        for _ in range(3):
            found.append(next(results))
        nodes.kill_one()
        found += results
        assert sorted(item for item, _ in found) == list(range(15))
        results, found = cluster.map_actors(partial(slowly, Path()), range(12), named), []
        found.append(next(results))
        nodes.kill_one()
        found += results
        assert sorted(item for item, _ in found) == list(range(12))
