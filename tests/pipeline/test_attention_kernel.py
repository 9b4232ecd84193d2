"""A recipe chooses what computes attention, for its run and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.device import DeviceConfig
from groundup.nn.kernel_choice import chosen_kernel
from groundup.pipeline import run
from groundup.pipeline.recipe import run_config_type


def test_the_runs_attention_is_that_of_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "roof_gflops", lambda policy: 100.0)
    device = DeviceConfig(
        device="cpu", dtype="float32", compile="off", threads=1, attention="eager"
    )
    try:
        with run.open_run(run_config_type()(device=device), tmp_path / "run"):
            assert chosen_kernel() == "eager"
        assert chosen_kernel() == "auto"
    finally:
        torch.use_deterministic_algorithms(False)
