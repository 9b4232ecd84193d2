"""The scores that families reach on tasks for which nothing is fetched; measured ones in LOG.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from groundup.data.tasks import find_task
from groundup.pipeline.tasks.runner import train_task
from groundup.pipeline.tasks.settings import TaskSettings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "family", "settings", "expected"),
    [
        ("last-digit", "encoder", {"steps": 120, "width": 64, "layers": 2}, 0.93),
        ("numbers", "encoder-decoder", {"steps": 250}, 0.93),
        ("numbers", "decoder", {"steps": 250}, 0.95),
        ("numbers", "lstm", {"steps": 400}, 0.95),
        ("digits", "mlp", {"steps": 600}, 0.94),
        ("digits", "vit", {"steps": 600}, 0.93),
        ("shapes", "vlm", {"steps": 200, "width": 64}, 0.6),
    ],
)
def test_a_family_reaches_its_score(
    task: str, family: str, settings: dict[str, Any], expected: float, tmp_path: Path
) -> None:
    options = TaskSettings(**settings, evaluations=1, test_examples=300)
    outcome = train_task(find_task(task), family, options, tmp_path)
    assert outcome.baseline < outcome.after
    assert outcome.after >= expected
