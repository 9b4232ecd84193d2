"""`groundup show`: every topic has its module, its picture and its table, and asks before work."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from groundup.config import UserError
from groundup.inspect import cache, formats, memory, schedules, show
from groundup.optim.schedules import factor

PNG = b"\x89PNG"


@pytest.mark.parametrize("topic", show.TOPICS)
def test_every_topic_has_a_module_beside_the_table(topic: str) -> None:
    source = Path(show.__file__).with_name(f"{topic}.py").read_text(encoding="utf-8")
    assert "\ndef show(out: Path" in source
    assert topic in show.topics()


def test_what_is_asked_is_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "show", lambda out: pytest.fail("worked"))
    for topic, out, words in (
        ("schedule", "a.png", "no topic 'schedule'. Did you mean 'schedules'?"),
        ("schedules", "missing/a.png", "no folder"),
        ("schedules", "a.jpg", r"saved as \.svg or \.png"),
        ("schedules", "folder.png", "choose another place"),
    ):
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=words):
            show.show(topic, tmp_path / out)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'groundup\[viz\]'"):
        show.show("schedules", tmp_path / "a.png")


def test_schedules_show_what_training_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    text = show.show("schedules", tell=told.append)
    assert told == [f"schedules: {show.TOPICS['schedules']}"]
    assert (tmp_path / "schedules.png").read_bytes().startswith(PNG)
    header, *rows = [line.split() for line in text.splitlines()[1:8]]
    for kind, *cells in rows:
        config = schedules.settings(kind, schedules.FLOOR)
        for step, cell in zip(header[1:], cells, strict=True):
            assert float(cell) == pytest.approx(factor(config, int(step), 1000), abs=5e-4)
    assert text.endswith("Saved schedules.png.")


def test_formats_by_real_casts(tmp_path: Path) -> None:
    text = formats.show(tmp_path / "formats.svg")
    assert "<svg" in (tmp_path / "formats.svg").read_text(encoding="utf-8")
    found = {name: formats.measure(name) for name in formats.FORMATS}
    assert [(f.exponent_bits, f.fraction_bits) for f in found.values()] == [
        (8, 23), (8, 7), (5, 10), (5, 2), (4, 3),
    ]  # fmt: skip
    half, brain = found["fp16"], found["bf16"]
    assert (half.largest, half.smallest, half.gradient) == (65504.0, 2.0**-24, 0.0)
    assert brain.gradient == pytest.approx(1e-8, rel=0.01)
    assert half.after_updates == brain.after_updates == 1.0
    assert found["fp32"].after_updates == pytest.approx(1.1, rel=1e-4)
    assert half.overflow == brain.overflow == float("inf")
    assert formats.scaled_backward(1.0) == 0
    assert formats.scaled_backward(2.0**16) == pytest.approx(1e-8, rel=1e-3)
    assert "6.55e+04" in text


def test_loss_scaling_saves_small_gradients_until_large_ones_overflow() -> None:
    gradients = torch.logspace(-12, -4, 400)
    lost = [formats.lost_share(2.0**power, torch.float16, gradients) for power in (0, 12, 36)]
    assert lost[0] > 0.5 and lost[1] < 0.2 < lost[2]
    assert formats.lost_share(1.0, torch.bfloat16, gradients) == 0


def test_checkpointing_holds_less_and_ends_with_the_same_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WIDTH", 24), ("HEADS", 2), ("VOCABULARY", 31), ("ROWS", 3)):
        monkeypatch.setattr(memory, name, value)
    for name, value in (("DEPTHS", (2, 5)), ("LENGTHS", (19,)), ("DEPTH", 5), ("LENGTH", 19)):
        monkeypatch.setattr(memory, name, value)
    steps = memory.measure(5, 19)
    assert steps["full"].peak < steps["selective"].peak < steps["none"].peak
    left = {int(step.held[-1]) for step in steps.values()}  # the gradients, and nothing else
    assert len(left) == 1 and left.pop() > 0
    assert memory.measure(5, 19)["full"].peak == steps["full"].peak, "the same in every run"
    text = memory.show(tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(PNG)
    assert "selective" in text and "5 blocks" in text


def test_every_allocation_counts_until_it_is_freed() -> None:
    def work() -> None:
        kept.append(torch.ones(1000))
        torch.ones(5000)  # freed at once

    kept: list[torch.Tensor] = []
    times, held = memory.allocations(work)
    assert (held.max(), held[-1]) == (24_000, 4000)
    assert times[0] == 0 and (times[1:] >= times[:-1]).all()


def test_the_cache_changes_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WIDTH", 24), ("LAYERS", 2), ("HEADS", 2), ("NEW_TOKENS", 23)):
        monkeypatch.setattr(cache, name, value)
    for name, value in (("PROMPTS", (3, 11)), ("SAMPLES", (1, 3)), ("SAMPLE_TOKENS", 5)):
        monkeypatch.setattr(cache, name, value)
    text = cache.show(tmp_path / "cache.png")
    torch.set_num_threads(1)
    assert (tmp_path / "cache.png").read_bytes().startswith(PNG)
    assert "The same tokens both ways." in text
    assert text.splitlines()[2].split()[0] == "16"


def test_all_topics_at_once_have_a_picture_each(tmp_path, monkeypatch):
    def draw(out: Path) -> str:
        out.touch()
        return f"table of {out.stem}"

    topic = SimpleNamespace(show=draw)
    monkeypatch.setattr(show, "importlib", SimpleNamespace(import_module=lambda name: topic))
    told: list[str] = []
    text = show.show("all", tmp_path / "pictures", tell=told.append)
    assert [line.partition(":")[0] for line in told] == list(show.TOPICS)
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == set(show.TOPICS)
    assert [line[2:] for line in text.splitlines() if line[:2] == "# "] == list(show.TOPICS)
    with pytest.raises(UserError, match="is a file"):
        show.show("all", tmp_path / "pictures" / "masks.png")
