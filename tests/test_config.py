"""Configs from TOML: nesting, types, spelling hints, and the way back to TOML."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from groundup.config import UserError, did_you_mean, from_dict, load_toml, require, to_dict, to_toml
from groundup.pipeline.recipe import RunConfig, load_recipe, run_config_type


@dataclass(frozen=True, kw_only=True)
class Inner:
    kind: Literal["gated", "plain"] = "gated"
    width: int
    scales: tuple[float, float] = (0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    rate: float = 1.0
    fast: bool = False
    limit: int | None = None
    inner: Inner
    many: tuple[Inner, ...] = ()
    words: tuple[str, ...] = field(default=("a",))


def parse(toml: str) -> Outer:
    return from_dict(Outer, tomllib.loads(toml))


def test_nested_sections_lists_and_defaults() -> None:
    config = parse(
        """
        name = "x"
        rate = 3
        limit = 7
        words = ["b", "c"]
        [inner]
        width = 5
        scales = [1, 0.5]
        [[many]]
        width = 1
        [[many]]
        width = 2
        kind = "plain"
        """
    )
    assert config == Outer(
        name="x",
        rate=3.0,
        limit=7,
        words=("b", "c"),
        inner=Inner(width=5, scales=(1.0, 0.5)),
        many=(Inner(width=1), Inner(width=2, kind="plain")),
    )
    assert isinstance(config.rate, float)
    assert isinstance(config.inner.scales[0], float)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[inner]\nwidth = 1", "Missing key 'name'."),
        ("name = 'x'\n[inner]", "Missing key 'inner.width'."),
        ("nam = 'x'", "Unknown key 'nam'. Did you mean 'name'?"),
        (
            "name = 'x'\n[inner]\nwidht = 1",
            "Unknown key 'inner.widht'. Did you mean 'width'?",
        ),
        ("name = 'x'\n[inner]\nqqq = 1", "Unknown key 'inner.qqq'. Valid: kind, scales, width."),
        ("name = 3", "'name' should be of type str, but is 3 (int)."),
        ("rate = 'fast'", "'rate' should be of type float, but is 'fast' (str)."),
        ("limit = 1.5", "'limit' should be of type int, but is 1.5 (float)."),
        ("limit = true", "'limit' should be of type int, but is True (bool)."),
        ("rate = true", "'rate' should be of type float, but is True (bool)."),
        ("fast = 1", "'fast' should be of type bool, but is 1 (int)."),
        ("inner = 3", "'inner' should be a section of keys, but is 3."),
        ("words = 'a'", "'words' should be a list, but is 'a'."),
        ("words = ['a', 2]", "'words[1]' should be of type str, but is 2 (int)."),
        ("[inner]\nscales = [1.0]", "'inner.scales' should have 2 entries, not 1."),
        (
            "[inner]\nkind = 'gatd'",
            "'inner.kind' cannot be 'gatd'. Did you mean 'gated'?",
        ),
        ("[inner]\nkind = []", "'inner.kind' cannot be []."),
        (
            "[[many]]\nwidth = 1\n[[many]]\nwidth = 'x'",
            "'many[1].width' should be of type int, but is 'x' (str).",
        ),
    ],
)
def test_mistakes_are_named_by_their_dotted_path(toml: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(toml)
    assert str(caught.value).startswith(message)


def test_where_prefixes_the_path() -> None:
    with pytest.raises(UserError, match=r"'model\.inner\.width'"):
        from_dict(Outer, {"name": "x", "inner": {"width": "w"}}, "model")


def test_to_dict_is_plain_and_reads_back() -> None:
    config = Outer(name="x", inner=Inner(width=3), many=(Inner(width=4, kind="plain"),))
    plain = to_dict(config)
    assert plain["many"] == [{"kind": "plain", "width": 4, "scales": [0.9, 0.95]}]
    assert from_dict(Outer, plain) == config
    assert from_dict(Outer, tomllib.loads(to_toml(config))) == config  # None was left out


def test_the_full_run_config_round_trips(tmp_path: Path) -> None:
    cls = run_config_type()
    config: Any = cls()
    config = dataclasses.replace(
        config,
        name="odd \"name\" with 'quotes' and 日本語\n",
        size=7,
        data=dataclasses.replace(
            config.data,
            sources=tuple(
                dataclasses.replace(source, weight=0.37, max_documents=3)
                for source in config.data.sources
            ),
        ),
        model=dataclasses.replace(config.model, tie_embeddings=False),
        pretrain=dataclasses.replace(config.pretrain, minutes=1.25),
    )
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert from_dict(cls, load_toml(path)) == config
    assert load_recipe(path) == config


def test_every_shipped_recipe_loads() -> None:
    recipes = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))
    assert recipes
    for path in recipes:
        config = load_recipe(path)
        assert isinstance(config, RunConfig)
        assert config.name == path.stem


def test_overrides_win_over_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("size = 3\n[pretrain]\nsteps = 9\n[pretrain.schedule]\nkind = 'cosine'\n")
    config: Any = load_recipe(path, ["--pretrain.steps", "11", "--model.tie-embeddings", "False"])
    assert (config.name, config.size, config.pretrain.steps) == ("mine", 3, 11)
    assert config.pretrain.schedule.kind == "cosine"
    assert config.model.tie_embeddings is False


@pytest.mark.parametrize("content", [b"size = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_malformed_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.toml is not valid TOML"):
        load_toml(path)


def test_missing_and_folder_recipes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_toml(tmp_path / "none.toml")
    with pytest.raises(UserError, match="is a folder"):
        load_toml(tmp_path)


def test_did_you_mean() -> None:
    assert did_you_mean("qwen", ["qwen3", "llama"]) == " Did you mean 'qwen3'?"
    assert did_you_mean("zzz", ["b", "a"]) == " Valid: a, b."
    assert did_you_mean("zzz", []) == ""


def test_require() -> None:
    require(True, "fine")
    with pytest.raises(UserError, match="broken"):
        require(False, "broken")
