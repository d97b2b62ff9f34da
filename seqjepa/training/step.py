"""A training step: the method learns from a batch, the online probes learn from its features, the meter adds both up.

On one GPU what can be of it is a CUDA graph. Shape letters: B sequences in a batch.
"""

from __future__ import annotations

from torch import Tensor

from seqjepa.config import RunConfig
from seqjepa.cuda_graphs import Replayed
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import METHODS
from seqjepa.methods.base import StepOutput
from seqjepa.training.distributed import World
from seqjepa.training.learner import Learner
from seqjepa.training.monitor import EpochMeter, OnlineProbes

SMALL = 1 << 25
"""Numbers in the views of a batch up to which its step is one CUDA graph: 170 sequences of four views at 128 px. By the
estimate that their kernels take no longer than launching them (docs/training.md); it was not measured."""


class TrainingStep:
    """Of small batches all of it is one CUDA graph, of larger ones the probes' step; elsewhere nothing is.

    A method of another package may read values of the host, which a graph would keep, and so is not replayed; nor are
    several ranks, whose collectives stay outside.
    """

    def __init__(self, learner: Learner, probes: OnlineProbes, meter: EpochMeter, config: RunConfig, world: World):
        self.learner, self.probes, self.meter, self.world = learner, probes, meter, world
        self._on_gpu = config.train.compile and learner.device.type == "cuda" and world.size == 1
        self._own = type(learner.method) in METHODS.values()
        self._largest = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Without a graph: it would go on with an optimizer's moments of before a state was loaded."""
        of_probes = [self.probes.optimizer] if self.probes.optimizer else []
        self._whole = Replayed(self._learn, [self.learner.optimizer, *of_probes], "training steps run")
        self._probed = Replayed(self.probes.learn_from, of_probes, "online probes learn")

    def __call__(self, seq: ViewSequence, step: int, lr: float, progress: float) -> StepOutput:
        """See Learner.update. What is returned is good until the next step."""
        if self._replays(seq):
            self.learner.write(step, lr, progress)
            return self._whole(seq.views, seq.actions, seq.params, seq.labels)
        output = self.learner.update(seq, step, lr, progress)
        self.meter.update(output, self._probe(output.features, seq), len(seq))
        return output

    def _probe(self, features: dict[str, Tensor], seq: ViewSequence) -> dict[str, Tensor]:
        if self._on_gpu and self.probes.optimizer:
            return self._probed(features["z"], features[self.probes.pooled], seq.actions, seq.labels)
        return self.probes.learn(features, seq, self.world)

    def _learn(self, *tensors: Tensor) -> StepOutput:
        """The step as it is captured."""
        seq = ViewSequence(*tensors, keys=[])
        output = self.learner.update_as_written(seq)
        self.meter.update(output, self.probes.learn(output.features, seq, self.world), len(seq))
        return output

    def _replays(self, seq: ViewSequence) -> bool:
        """Whether the largest batch so far is small enough for the step to be one CUDA graph."""
        self._largest = max(self._largest, seq.views.numel())
        return self._on_gpu and self._own and self._largest <= SMALL
