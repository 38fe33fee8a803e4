"""Measuring memory leaves DeepSpeed's engines as they are."""

import pytest
import torch
from minute_t5 import minute_t5

from raycrp.choices import Precision
from raycrp.train.deepspeed import OptimizerSettings, build_engine, prepare_process
from raycrp.train.memory import run_pass
from raycrp.train.trainer import join_single_process_group

pytestmark = pytest.mark.integration

INPUTS = torch.arange(1, 19).reshape(2, 9)


def losses(*, zero_stage, offload, probes):
    engine = build_engine(
        minute_t5(dropout_rate=0.0).train(),
        optimizer=OptimizerSettings(1e-2, 0.01, 1.0),
        zero_stage=zero_stage,
        micro_batch_size=2,
        precision=Precision.FP32,
        offload=offload,
    )
    for rows in probes:
        run_pass(engine.module, rows=rows, prompt=11, target=7)
    found = []
    for _ in range(3):
        for _ in range(2):
            logits = engine(input_ids=INPUTS, decoder_input_ids=INPUTS, use_cache=False).logits
            loss = logits.logsumexp(-1).mean()
            engine.backward(loss, scale_wrt_gas=False)
        engine.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize(("zero_stage", "offload"), [(0, False), (1, True), (2, False), (3, False)])
def test_training_goes_on_as_if_nothing_had_been_measured(zero_stage, offload):
    prepare_process(use_gpu=False)
    join_single_process_group(use_gpu=False)
    plain = losses(zero_stage=zero_stage, offload=offload, probes=())
    assert losses(zero_stage=zero_stage, offload=offload, probes=(1, 5)) == plain
    assert plain[0] > plain[-1]
