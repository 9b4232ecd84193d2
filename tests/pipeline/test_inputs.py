"""An edited source file is noticed: the data stage, and all after it, run again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from groundup.data.config import DataConfig, SourceConfig
from groundup.pipeline.recipe import load_recipe
from groundup.pipeline.run import speedrun
from groundup.pipeline.stages.data import contents


def test_contents_change_with_a_byte_and_leave_named_corpora_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("to be or not")
    own = SourceConfig(name=str(file))
    others = (SourceConfig(name="shakespeare"), SourceConfig(name="hf:a/b"))
    config = DataConfig(sources=(own, *others))
    before = contents(config)
    assert list(before) == [str(file)]
    file.write_text("to be or nor")
    assert contents(config) != before


@pytest.mark.usefixtures("known_roof")
def test_an_edited_text_runs_the_stages_again(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in tiny_recipe.parent.iterdir():
        shutil.copy(file, tmp_path)
    recipe = tmp_path / tiny_recipe.name
    recipe.write_text(tiny_recipe.read_text().replace(str(tiny_recipe.parent), str(tmp_path)))
    config, folder = load_recipe(recipe), tmp_path / "run"
    speedrun(config, folder)
    speedrun(config, folder)
    assert "Pretrain (unchanged)" in capsys.readouterr().err
    with open(tmp_path / "text.txt", "a") as text:
        text.write("\n\nOne more paragraph.")
    speedrun(config, folder)
    assert "(unchanged)" not in capsys.readouterr().err
