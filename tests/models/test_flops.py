from __future__ import annotations

import pytest
import torch

from seqjepa.config import RunConfig
from seqjepa.methods.flops import count_macs
from seqjepa.methods.seq_jepa import SeqJEPA


@pytest.fixture(scope="module")
def method() -> SeqJEPA:
    with torch.device("meta"):
        return SeqJEPA(RunConfig(), 4)


@pytest.mark.parametrize(("context", "giga"), [(1, 0.622), (2, 1.229), (3, 1.836), (4, 2.443), (8, 4.870)])
def test_forward_macs_equal_the_specs(method: SeqJEPA, context: int, giga: float) -> None:
    assert count_macs(method, 4, 128, context).forward / 1e9 == pytest.approx(giga, abs=0.0006)


def test_training_macs_are_both_encoders_and_a_backward_pass(method: SeqJEPA) -> None:
    macs = count_macs(method, 4, 128, 3)
    # of the aggregator's 3 layers of 12 W² a token, [AGG] alone has more than keys and values of the last one
    encoder, aggregator, predictor = 0.592e9, (2 * 4 * 12 + 4 * 2 + 10) * 640**2, 0.0013e9
    first_layer = 64 * 64 * 64 * 3 * 49  # no gradient is needed for the pixels
    expected = 3 * (3 * encoder + aggregator + predictor) - 3 * first_layer + encoder
    assert macs.training == pytest.approx(expected, rel=0.002)
