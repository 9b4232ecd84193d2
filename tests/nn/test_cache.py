"""The key/value cache: in place, in order, and never past its end."""

from __future__ import annotations

import pytest
import torch

from groundup.config import UserError
from groundup.nn.cache import KVCache


def _cache(**changes: int) -> KVCache:
    sizes = {"num_layers": 3, "batch": 2, "num_kv_heads": 2, "head_width": 5, "capacity": 9}
    return KVCache(**(sizes | changes))


def _append(cache: KVCache, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    new = [torch.randn(2, 2, 2, length, 5).unbind() for _ in cache.layers]
    for layer, (keys, values) in zip(cache.layers, new, strict=True):
        layer.append(keys, values)
    return new


def test_appended_pieces_come_back_joined_from_the_same_memory():
    cache = _cache()
    pieces = [_append(cache, length) for length in (4, 1, 3)]
    assert cache.length == 8
    layer = cache.layers[1]
    for index, stored in enumerate((layer.keys, layer.values)):
        expected = torch.cat([piece[1][index] for piece in pieces], dim=2)
        assert torch.equal(stored[:, :, :8], expected)
        assert stored.untyped_storage().data_ptr() == cache.storage.untyped_storage().data_ptr()


def test_growth_formula():
    assert _cache().num_bytes == 2 * 3 * 2 * 2 * 5 * 9 * 4


def test_truncate_then_append_overwrites():
    cache = _cache()
    _append(cache, 6)
    cache.truncate(2)
    assert cache.length == 2
    new = _append(cache, 1)
    assert torch.equal(cache.layers[2].values[:, :, 2:3], new[2][1])


def test_expand_repeats_rows_side_by_side_and_is_independent():
    cache = _cache()
    _append(cache, 4)
    before = cache.storage.clone()
    wide = cache.expand(3)
    assert wide.length == 4 and wide.layers[0].keys.shape[0] == 6
    for row in range(6):
        assert torch.equal(wide.layers[1].keys[row], cache.layers[1].keys[row // 3])
    wide.layers[0].keys.zero_()
    assert torch.equal(cache.storage, before)


def test_a_full_cache_says_so():
    cache = _cache()
    _append(cache, 8)
    with pytest.raises(UserError, match="holds 9 tokens, but 10"):
        _append(cache, 2)
