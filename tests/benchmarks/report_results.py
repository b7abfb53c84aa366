"""Results as the benchmarks write them, made up, for the report."""

import json
from pathlib import Path
from typing import Any

ENVIRONMENT: dict[str, Any] = {
    "machine": "Linux x86_64, 2 cores",
    "device": "cpu",
    "python": "3.11.7",
    "versions": {"mlx": "0.32.4", "mlx-lm": "0.32.2"},
    "blas": "oneMKL",
    "model": "smollm2-135m",
    "dtypes": ["float32"],
    "seed": 0,
    "engine_options": {},
}


def interval(median: float, spread: float = 0.05) -> dict[str, float]:
    return {"median": median, "low": median * (1 - spread), "high": median * (1 + spread)}


def tools_overhead(compile_ms: float = 1.2) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"tools": 0, "mask_ms": interval(0.002), "host_besides_forward_ms": interval(0.4)}]
    for tools in (1, 10, 50, 200):
        compiled = compile_ms * tools**0.75
        rows.append(
            {
                "tools": tools,
                "compile_ms": interval(compiled),
                "compile_ms_of_it_llguidance": interval(compiled / 2),
                "compile_cached_ms": interval(0.04),
                "compile_cached_ms_of_it_llguidance": interval(0.02),
                "mask_ms": interval(0.05 + 0.0005 * tools),
                "host_besides_forward_ms": interval(0.6 + 0.001 * tools),
            }
        )
    for row in rows:
        row |= {"steps": 300, "mask_p95_ms": 0.3}
    return {"benchmark": "tools_overhead", **ENVIRONMENT, "model": "random:tiny", "repeats": 25, "rows": rows}


def host_step(besides_ms: float = 0.8) -> dict[str, Any]:
    rows = [
        {
            "kind": kind,
            "batch": size,
            "steps": 200,
            "ms_by_part": {
                "forward": interval(0.5 * size**0.5),
                "mask": interval(0.02 if kind == "free" else 0.15 * size),
                "sample": interval(0.2 + 0.02 * size),
                "python": interval(0.3 * size),
            },
            "besides_forward_ms": interval(besides_ms * size),
            "mask_wall_ms": interval(0.1 * size),
        }
        for kind in ("free", "constrained")
        for size in (1, 2, 4, 8, 16)
    ]
    return {"benchmark": "host_step", **ENVIRONMENT, "model": "random:prose", "rows": rows}


def batch(ratio: float = 0.4) -> dict[str, Any]:
    speeds = {"toolmask_calls": 16, "mlx_lm_calls": 7, "toolmask_free": 11, "mlx_lm_free": 10.5}
    rows = [
        {
            "batch": size,
            "groups": 15,
            "modes": {
                mode: {
                    "tokens": 600 * size,
                    "complete": 15 * size,
                    "tokens_per_s": interval(speed * size**0.7),
                    "latency_s": interval(40 / speed * size**0.3),
                }
                for mode, speed in speeds.items()
            },
            "time_ratio": {"calls": interval(ratio), "free": interval(0.95)},
            "product_speedup": round(size**0.8, 3),
        }
        for size in (1, 2, 4, 8)
    ]
    return {"benchmark": "batch", **ENVIRONMENT, "max_tokens": 96, "rows": rows}


def peers() -> dict[str, Any]:
    seconds = {
        "toolmask": 1.9,
        "toolmask_one_by_one": 3.6,
        "mlx_lm_free": 3.5,
        "mlx_lm_llguidance": 3.9,
        "mlx_lm_xgrammar": 4.0,
    }
    modes = {
        mode: {
            "cases": 30,
            "complete": 29,
            "tokens": 1400,
            "seconds": interval(one, 0.15),
            "compile_s": interval(0.01),
            "ours_to_it": interval(1.9 / one),
        }
        for mode, one in seconds.items()
    }
    missing = {"mlx_lm_outlines": "not installed: No module named 'outlines_core'"}
    return {"benchmark": "peers", **ENVIRONMENT, "pairs": 30, "modes": modes, "not_measured": missing, "refused": {}}


def servers() -> dict[str, Any]:
    latencies = {("toolmask", "free"): 3.1, ("mlx_lm", "free"): 3.4, ("toolmask", "calls"): 2.4}
    rows = [
        {
            "server": server,
            "kind": kind,
            "clients": clients,
            "rounds": 15,
            "tokens": 48 * clients,
            "latency_s": interval(one * clients**0.5),
            "tokens_per_s": interval(15 * clients**0.5),
        }
        for (server, kind), one in latencies.items()
        for clients in (1, 2, 4, 8)
    ]
    return {"benchmark": "servers", **ENVIRONMENT, "max_tokens": 48, "rounds": 15, "rows": rows}


def ttft(ratio: float = 0.05) -> dict[str, Any]:
    return {
        "benchmark": "ttft",
        **ENVIRONMENT,
        "tools": 20,
        "pairs": 15,
        "seconds": {"cold": interval(20.0), "warm": interval(20.0 * ratio)},
        "prompt_tokens": {"cold": 2100.0, "warm": 2101.0},
        "cached_tokens": {"cold": 12.0, "warm": 2070.0},
        "ratio": interval(ratio),
    }


def decode(ratio: float = 0.45, guessed: int = 0) -> dict[str, Any]:
    modes = {"mlx_lm_free": 1.0, "toolmask_free": 0.97, "constrained": 1.02, "constrained_ff": ratio}
    counts = {
        mode: {"tokens": 1377, "forced_tokens": 848 if mode == "constrained_ff" else 0, "forced_share": 0.6158}
        for mode in modes
    }
    for mode in modes:
        counts[mode]["forward_passes"] = counts[mode]["tokens"] - counts[mode]["forced_tokens"]
    return {
        "benchmark": "decode",
        **ENVIRONMENT,
        "cases": 30,
        "pairs": 30,
        "counts": counts,
        "ratios": {mode: interval(one, 0.02) for mode, one in modes.items() if mode != "mlx_lm_free"},
        "ms_per_token": {mode: interval(60 * one) for mode, one in modes.items()},
        "drafts": {"guessed": guessed, "right": guessed // 5},
    }


def decode_drafts(ratio: float = 0.35) -> dict[str, Any]:
    return {**decode(ratio, guessed=302), "engine_options": {"drafts": True}}


def long_string(ratio: float = 1.0) -> dict[str, Any]:
    ms = {"free": interval(60.0), "constrained": interval(60.0 / ratio)}
    found = {"ms_per_token": ms, "speed_ratio": interval(ratio, 0.01)}
    return {"benchmark": "long_string", **ENVIRONMENT, "pairs": 15, "tokens": 64, **found}


def idle_memory(kilobytes: float = 40.0) -> dict[str, Any]:
    rows = [
        {"state": state, "sequences": 384, "kilobytes": interval(kilobytes), "groups": [kilobytes] * 6}
        for state in ("waiting", "running")
    ]
    return {"benchmark": "idle_memory", **ENVIRONMENT, "model": "random:tiny", "rows": rows}


def overlap() -> dict[str, Any]:
    ms = {"launch_ms": 57.0, "wait_ms": 5.4, "wait_after_work_ms": 2.0, "whole_ms": 62.4, "exposed_ms": 1.6}
    found = {name: interval(one) for name, one in ms.items()}
    return {"benchmark": "overlap", **ENVIRONMENT, "pairs": 30, "work_ms": 5.0, **found}


def all_results() -> dict[str, dict[str, Any]]:
    """One of each."""
    made = (tools_overhead(), host_step(), batch(), peers(), servers(), ttft(), long_string(), idle_memory(), overlap())
    drafted = {"decode": decode(), "decode_drafts": decode_drafts(0.35)}
    return {**{one["benchmark"]: one for one in made}, **drafted}


def write(results: dict[str, dict[str, Any]], folder: Path) -> Path:
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result))
    return folder
