"""The key/value cache: in place, in order, and never past its end."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.nn.cache import KVCache, LayerCache, RollingCache


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
    before = cache.layers[1].keys.data_ptr(), cache.layers[1].values.data_ptr()
    pieces = [_append(cache, length) for length in (4, 1, 3)]
    assert cache.length == 8
    layer = cache.layers[1]
    for index, stored in enumerate((layer.keys, layer.values)):
        expected = torch.cat([piece[1][index] for piece in pieces], dim=2)
        assert torch.equal(stored[:, :, :8], expected)
        assert stored.data_ptr() == before[index]


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
    before = cache.layers[0].keys.clone()
    wide = cache.expand(3)
    assert wide.length == 4 and wide.layers[0].keys.shape[0] == 6
    for row in range(6):
        assert torch.equal(wide.layers[1].keys[row], cache.layers[1].keys[row // 3])
    wide.layers[0].keys.zero_()
    assert torch.equal(cache.layers[0].keys, before)


def test_a_full_cache_says_so():
    cache = _cache()
    _append(cache, 8)
    with pytest.raises(UserError, match="holds 9 tokens, but 10"):
        _append(cache, 2)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    window=st.integers(1, 6),
    lengths=st.lists(st.integers(1, 15), max_size=8),
    back=st.integers(0, 8),
)
def test_a_rolling_cache_returns_the_last_keys_and_stays_small(window, lengths, back):
    keys, values = torch.zeros(2, 2, 3, 2 * window, 5)
    cache = RollingCache(keys, values, window)
    every = torch.randn(2, 2, 3, sum(lengths) + 4, 5)
    for length in lengths:
        stop = cache.length + length
        earlier = min(cache.length, window - 1)
        assert cache.num_keys(length) == earlier + length
        found = cache.append(*every[:, :, :, cache.length : stop])
        for actual, whole in zip(found, every, strict=True):
            assert torch.equal(actual, whole[:, :, stop - length - earlier : stop])
        assert cache.keys.shape[2] == 2 * window and cache.length == stop
    target = max(cache.length - back, 0)
    start = cache.reachable(target)
    assert start in (0, target) and (back > 0 or start == target)
    cache.truncate(start)
    copy = cache.select(torch.tensor([1, 1]))
    found = copy.append(*every[:, [1, 1], :, start : start + 4])
    first = start - min(start, window - 1)
    assert torch.equal(found[1], every[1, [1, 1], :, first : start + 4])
    assert cache.length == start and copy.length == start + 4


def test_layers_of_both_kinds_go_back_together():
    rolling = RollingCache(*torch.zeros(2, 1, 1, 6, 2), window=3)
    cache = KVCache.of([LayerCache(*torch.zeros(2, 1, 1, 20, 2)), rolling])
    for length in (5, 1, 6):
        for layer in cache.layers:
            layer.append(*torch.randn(2, 1, 1, length, 2))
    assert cache.length == 12
    assert cache.reachable(12) == 12 and cache.reachable(4) == 0
    cache.truncate(0)
    assert [layer.length for layer in cache.layers] == [0, 0] and rolling.num_keys(1) == 1
