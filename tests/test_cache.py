import mlx.core as mx
import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from engine.cache import SequenceCache, arrays_in


def append(cache: SequenceCache, num_tokens: int) -> None:
    keys = mx.arange(num_tokens, dtype=mx.float32).reshape(1, 1, num_tokens, 1)
    for layer in cache.layers:
        layer.update_and_fetch(keys, keys)
    cache.advance(num_tokens)


def test_a_new_cache_has_seen_nothing() -> None:
    cache = SequenceCache([KVCache(), KVCache()])
    assert (cache.num_tokens, cache.arrays()) == (0, [])


def test_appended_tokens_are_counted_and_its_arrays_are_those_of_all_layers() -> None:
    cache = SequenceCache([KVCache(), KVCache()])
    append(cache, 3)
    append(cache, 2)
    assert cache.num_tokens == 5
    assert len(cache.arrays()) == 4  # keys and values


def test_trimming_forgets_the_last_tokens() -> None:
    cache = SequenceCache([KVCache()])
    append(cache, 5)
    cache.trim(2)
    append(cache, 1)
    keys, _ = cache.layers[0].keys_and_values()
    assert cache.num_tokens == 4
    assert keys.reshape(-1).tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("num_tokens", [3, 6], ids=["before", "after"])
def test_a_rotating_cache_cannot_be_trimmed_neither_before_nor_after_it_has_rotated(num_tokens: int) -> None:
    cache = SequenceCache([KVCache(), RotatingKVCache(max_size=4)])
    append(cache, num_tokens)
    assert not cache.can_trim
    with pytest.raises(AssertionError):
        cache.trim(1)


def test_a_layer_of_several_caches_can_be_trimmed_where_each_of_them_can() -> None:
    assert SequenceCache([CacheList(KVCache(), KVCache())]).can_trim
    assert not SequenceCache([CacheList(KVCache(), RotatingKVCache(max_size=4))]).can_trim
    assert not SequenceCache([CacheList(KVCache(), ArraysCache(size=2))]).can_trim


def test_arrays_are_found_at_every_depth() -> None:
    first, second = mx.zeros(1), mx.zeros(2)
    found = arrays_in({"a": [first, None, 3], "b": ({"c": second},)})
    assert [array.size for array in found] == [1, 2]
