"""The verbs that succeed: what they print."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup import cli
from groundup.data.corpora import CORPORA
from groundup.models.decoder import Decoder
from groundup.models.folder import save_model
from groundup.text.tokenizer import Tokenizer


def test_named_corpora_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["data"])
    shown = capsys.readouterr().out
    for name, corpus in CORPORA.items():
        assert f"{name}: {corpus.description}" in shown
        assert corpus.licence in shown and corpus.url in shown


def test_several_samples_start_alike_and_differ(
    tiny_model: Decoder,
    tiny_tokenizer: Tokenizer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(tmp_path / "m", tiny_model, tiny_tokenizer, {})
    words = ["generate", str(tmp_path / "m"), "--prompt", "The stones"]
    words += ["--max-tokens", "12", "--seed", "4"]
    cli.main([*words, "--samples", "3"])
    shown = capsys.readouterr().out
    assert shown.count("The stones") == 3
    first, second, third = (part.strip() for part in shown.split("The stones")[1:])
    assert len({first, second, third}) == 3
    cli.main(words)
    assert capsys.readouterr().out.strip() == f"The stones{first}"
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words, "--samples", "0"])
