"""Pure functions from logits (B, V) to logits (B, V), float32.

Parameters are columns (B, 1), one value a row; each function leaves a row alone where the value means "off".
The filters write -inf over what they drop, keep every token that ties with the last one kept (so that no result
depends on how a backend sorts equal numbers), and always keep the likeliest. They expect logits without NaN or
+inf, and in each row one that is finite: what apply_bitmask returns.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx


def penalise_repetition(logits: mx.array, seen: mx.array, penalty: mx.array) -> mx.array:
    """Make tokens that were seen less likely: positive logits are divided by the penalty, others multiplied.

    seen: (B, K), token ids, repeats allowed. penalty: (B, 1), above 0; 1 is off. Keskar et al., "CTRL",
    arXiv:1909.05858, section 4.1, with the sign rule that everyone since has used.
    """
    return _update(logits, seen, lambda values: mx.where(values > 0, values / penalty, values * penalty))


def penalise_occurrences(
    logits: mx.array, tokens: mx.array, counts: mx.array, presence: mx.array, frequency: mx.array
) -> mx.array:
    """Subtract `presence` once and `frequency` per occurrence; 0 is off. OpenAI's API reference defines both.

    tokens: (B, K), ids; a row may repeat one only with the same count. counts: (B, K), 1 or more.
    presence, frequency: (B, 1).
    """
    return _update(logits, tokens, lambda values: values - presence - frequency * counts)


def add_bias(logits: mx.array, tokens: mx.array, bias: mx.array) -> mx.array:
    """tokens: (B, K), ids; a row may repeat one only with the same bias. bias: (B, K)."""
    return _update(logits, tokens, lambda values: values + bias)


def divide_by_temperature(logits: mx.array, temperature: mx.array) -> mx.array:
    """Sharpen (below 1) or flatten (above 1). temperature: (B, 1), a normal number above 0.

    Logits are first shifted so that the best is 0, which changes no probability: a tiny temperature then sends
    the others to -inf, where unshifted logits would overflow to several +inf.
    """
    return (logits - mx.max(logits, axis=-1, keepdims=True)) / temperature


def keep_top_k(logits: mx.array, top_k: mx.array, *, num_candidates: int) -> mx.array:
    """Keep, per row, the top_k likeliest tokens and those that tie with the last of them.

    top_k: (B, 1), int32; 0 is off. num_candidates: the greatest of top_k, known on the host.
    """
    candidates = _likeliest(logits, num_candidates)
    last_kept = mx.clip(top_k - 1, 0, candidates.shape[-1] - 1)
    threshold = mx.take_along_axis(candidates, last_kept, axis=-1)
    return mx.where((logits >= threshold) | (top_k == 0), logits, -mx.inf)


def keep_top_p(logits: mx.array, top_p: mx.array, *, num_candidates: int | None = None) -> mx.array:
    """Keep, per row, the fewest tokens whose probability reaches top_p, and those that tie with the last of them.

    top_p: (B, 1), in (0, 1]; 1 is off. num_candidates: a bound on the tokens that are not -inf, ties aside, if
    there is one; spares sorting the whole vocabulary. Nucleus sampling, Holtzman et al., arXiv:1904.09751.
    """
    probs = mx.softmax(logits, axis=-1, precise=True)
    candidates = _likeliest(probs, num_candidates)
    # Mass before a token, not up to it: the token that crosses top_p is kept.
    mass_before = mx.cumsum(candidates, axis=-1, inclusive=False)
    best = candidates[:, :1]
    threshold = mx.min(mx.where(mass_before < top_p, candidates, best), axis=-1, keepdims=True)
    # Rounding may bring the mass to 1 early, so "off" is asked for, not inferred.
    return mx.where((probs >= threshold) | (top_p >= 1), logits, -mx.inf)


def keep_min_p(logits: mx.array, min_p: mx.array) -> mx.array:
    """Keep, per row, the tokens at least min_p times as likely as the likeliest.

    min_p: (B, 1), in [0, 1]; 0 is off. Nguyen et al., arXiv:2407.01082.
    """
    threshold = mx.max(logits, axis=-1, keepdims=True) + mx.log(min_p)
    return mx.where(logits >= threshold, logits, -mx.inf)


def add_gumbel_noise(logits: mx.array, keys: Sequence[int]) -> mx.array:
    """Noise under which argmax draws from softmax(logits); row i's depends on keys[i] alone.

    keys: B numbers of 64 bits. Gumbel-max: Maddison et al., "A* Sampling", arXiv:1411.0030, section 2.
    """
    shape = (1, logits.shape[-1])
    rows = [mx.random.gumbel(shape, key=mx.random.key(key)) for key in keys]
    noise = rows[0] if len(rows) == 1 else mx.concatenate(rows)
    # A uniform number of exactly 0 gives -inf, which would drop an allowed token; the next one gives -3.1.
    return logits + mx.maximum(noise, -4.0)


def _update(logits: mx.array, tokens: mx.array, change: Callable[[mx.array], mx.array]) -> mx.array:
    # Only the columns of these tokens are touched. Repeats write equal values, so their order cannot matter.
    values = mx.take_along_axis(logits, tokens, axis=-1)
    return mx.put_along_axis(logits, tokens, change(values), axis=-1)


def _likeliest(values: mx.array, num_candidates: int | None) -> mx.array:
    """The greatest num_candidates of each row (all of them for None), in falling order."""
    if num_candidates is not None and num_candidates < values.shape[-1]:
        values = mx.topk(values, num_candidates, axis=-1)
    return mx.sort(values, axis=-1)[:, ::-1]
