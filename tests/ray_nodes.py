"""Several Ray nodes on this machine, each with its own raylet, workers and object store; one can be killed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

STORE_BYTES = 80 << 20


class Nodes:
    """`address` is what --address takes."""

    def __init__(self, cluster: Any) -> None:
        self._cluster, self._workers = cluster, []
        self.address: str = cluster.address

    def add(self, **resources: Any) -> None:
        """A node of one core, unless `resources` say otherwise."""
        asked = {"num_cpus": 1, "object_store_memory": STORE_BYTES, **resources}
        self._workers.append(self._cluster.add_node(**asked))

    def kill_one(self) -> None:
        """The raylet is killed, its workers with it, as when a machine is switched off."""
        self._cluster.remove_node(self._workers.pop(), allow_graceful=False)


@contextlib.contextmanager
def ray_nodes(count: int) -> Iterator[Nodes]:
    """`count` nodes of one core each, the first of which is the head, in which the cluster's own services run."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)  # workers find test modules too
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = Nodes(cluster)
        for _ in range(count - 1):
            nodes.add()
        yield nodes
    finally:
        cluster.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
