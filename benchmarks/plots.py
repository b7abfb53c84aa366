"""The report's plots, each as PNG and as SVG. Whiskers are 95 % bootstrap intervals of medians."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")  # files only: no display is asked for

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

Results = Mapping[str, Mapping[str, Any]]
Interval = Mapping[str, float]
Look = tuple[str, str, str]  # label, colour, marks

# Okabe and Ito's colours, which colour-blind readers tell apart. Ours is always the blue one.
BLUE, SKY, ORANGE, GREEN, RED, PINK, GREY = "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#777777"
STYLE = {
    "figure.figsize": (7.2, 4.2),
    "figure.dpi": 150,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "toolmask",  # the same picture gives the same file
}

NAMES = {
    "toolmask": "toolmask",
    "toolmask_one_by_one": "toolmask, one token a pass",
    "mlx_lm_free": "mlx-lm, free text",
    "mlx_lm_llguidance": "mlx-lm + llguidance processor",
    "mlx_lm_xgrammar": "mlx-lm + xgrammar matcher",
    "mlx_lm_outlines": "mlx-lm + outlines guide",
}
BATCH_LINES = {
    "toolmask_calls": ("toolmask, calls", BLUE, "o-"),
    "mlx_lm_calls": ("BatchGenerator, calls (llguidance)", ORANGE, "s-"),
    "toolmask_free": ("toolmask, free text", BLUE, "o--"),
    "mlx_lm_free": ("BatchGenerator, free text", ORANGE, "s--"),
}
SERVER_LINES = {
    ("toolmask", "calls"): ("toolmask serve, required calls", BLUE, "o-"),
    ("toolmask", "free"): ("toolmask serve, free text", BLUE, "o--"),
    ("mlx_lm", "free"): ("mlx_lm.server, free text", ORANGE, "s--"),
}
PART_COLOURS = {"forward": GREY, "mask": BLUE, "sample": ORANGE, "python": GREEN}


def draw_all(results: Results, folder: Path) -> list[str]:
    """Every plot whose result is there; the names of the PNG files."""
    drawn = []
    with mpl.rc_context(STYLE):
        for name, (source, draw) in PLOTS.items():
            if source in results:
                figure, axes = plt.subplots(layout="constrained")
                draw(results[source], axes)
                for suffix in ("png", "svg"):
                    metadata = {"Date": None} if suffix == "svg" else None
                    figure.savefig(folder / f"{name}.{suffix}", metadata=metadata)
                plt.close(figure)
                drawn.append(f"{name}.png")
    return drawn


def _tools_overhead(result: Mapping[str, Any], axes: Axes) -> None:
    lines = {
        "compile_ms": ("compile, cold", RED, "o-"),
        "compile_cached_ms": ("compile, cached", PINK, "s-"),
        "host_besides_forward_ms": ("host per step, besides the forward pass", GREEN, "^-"),
        "mask_ms": ("mask per step", BLUE, "v-"),
    }
    for key, look in lines.items():
        rows = [row for row in result["rows"] if row["tools"] and key in row]
        _line(axes, [row["tools"] for row in rows], [row[key] for row in rows], look)
    axes.set(xscale="log", yscale="log", xlabel="tools offered", ylabel="milliseconds (log)")
    _ticks(axes, [row["tools"] for row in result["rows"] if row["tools"]])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_title("What more tools cost, vocabulary of 128k tokens")
    _legend(axes)


def _tokens_per_s(result: Mapping[str, Any], axes: Axes) -> None:
    rows = result["rows"]
    sizes = [row["batch"] for row in rows]
    for mode, look in BATCH_LINES.items():
        _line(axes, sizes, [row["modes"][mode]["tokens_per_s"] for row in rows], look)
    alone = rows[0]["modes"]["toolmask_free"]["tokens_per_s"]["median"]
    bound = [alone * row["product_speedup"] for row in rows]
    axes.plot(sizes, bound, ":", color=GREY, label="free text, if only the weights' products counted")
    axes.set(xlabel="requests at once", ylabel="tokens per second, whole requests", ylim=(0, None), xscale="log")
    _ticks(axes, sizes)
    axes.set_title("Tokens per second against batch size")
    _legend(axes)


def _time_per_call(result: Mapping[str, Any], axes: Axes) -> None:
    found = {mode: one for mode, one in result["modes"].items() if mode in NAMES}
    order = sorted(found, key=lambda mode: -found[mode]["seconds"]["median"])
    for position, mode in enumerate(order):
        interval = found[mode]["seconds"]
        colour = BLUE if mode == "toolmask" else SKY if mode.startswith("toolmask") else ORANGE
        axes.barh(position, interval["median"], color=colour, height=0.62)
        axes.errorbar(interval["median"], position, xerr=_errors([interval]), color="black", capsize=3, linewidth=1)
        axes.text(interval["high"], position, f"  {interval['median']:.2f} s", va="center", fontsize=9)
    axes.set_yticks(range(len(order)), [NAMES[mode] for mode in order])
    axes.set(xlabel="seconds a call: grammar, prompt and decoding", xlim=(0, _room(found)))
    axes.grid(visible=False, axis="y")
    axes.set_title(f"Time per tool call by loop, {result['pairs']} cases")


def _room(found: Mapping[str, Any]) -> float:
    """Of the longest bar, with its label."""
    return 1.18 * max(float(one["seconds"]["high"]) for one in found.values())


def _latency(result: Mapping[str, Any], axes: Axes) -> None:
    clients: list[int] = sorted({row["clients"] for row in result["rows"]})
    for (server, kind), look in SERVER_LINES.items():
        rows = [row for row in result["rows"] if (row["server"], row["kind"]) == (server, kind)]
        rows.sort(key=lambda row: row["clients"])
        _line(axes, [row["clients"] for row in rows], [row["latency_s"] for row in rows], look)
    axes.set(xlabel="clients at once", ylabel="seconds to the whole answer", ylim=(0, None), xscale="log")
    _ticks(axes, clients)
    axes.set_title(f"Latency against concurrency, over HTTP, {result['max_tokens']} tokens at most")
    _legend(axes)


def _host_step(result: Mapping[str, Any], axes: Axes) -> None:
    rows = result["rows"]
    labels = [f"{row['batch']}" for row in rows]
    bottoms = [0.0] * len(rows)
    gap = [0.6 * (row["kind"] != rows[0]["kind"]) for row in rows]  # between the kinds
    places = [index + extra for index, extra in enumerate(gap)]
    for part, colour in PART_COLOURS.items():
        heights = [row["ms_by_part"][part]["median"] for row in rows]
        axes.bar(places, heights, bottom=bottoms, color=colour, width=0.7, label=part)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    for place, total in zip(places, bottoms, strict=True):
        axes.text(place, total, f"{total:.2f}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(places, labels)
    for kind in dict.fromkeys(row["kind"] for row in rows):
        middle = [place for place, row in zip(places, rows, strict=True) if row["kind"] == kind]
        axes.text(sum(middle) / len(middle), -0.115, f"{kind} rows", ha="center", transform=axes.get_xaxis_transform())
    axes.set_xlabel("batch size", labelpad=16)
    axes.set_ylabel("CPU milliseconds per step")
    axes.grid(visible=False, axis="x")
    axes.set_title("The decoding thread's time per step, vocabulary of 128k tokens")
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc="upper left")


def _line(axes: Axes, xs: Sequence[float], intervals: Sequence[Interval], look: Look) -> None:
    label, colour, marks = look
    medians = [interval["median"] for interval in intervals]
    axes.errorbar(
        xs,
        medians,
        yerr=_errors(intervals),
        fmt=marks,
        color=colour,
        label=label,
        capsize=3,
        linewidth=1.6,
        markersize=5,
    )


def _errors(intervals: Sequence[Interval]) -> list[list[float]]:
    low = [interval["median"] - interval["low"] for interval in intervals]
    return [low, [interval["high"] - interval["median"] for interval in intervals]]


def _ticks(axes: Axes, values: Sequence[int]) -> None:
    """The measured values, and nothing between."""
    axes.xaxis.set_major_locator(FixedLocator([float(value) for value in values]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper left", fontsize=9)
    axes.margins(y=0.25)


PLOTS: Mapping[str, tuple[str, Callable[[Mapping[str, Any], Axes], None]]] = {
    "overhead_by_tools": ("tools_overhead", _tools_overhead),
    "tokens_per_second_by_batch": ("batch", _tokens_per_s),
    "time_per_call_by_loop": ("peers", _time_per_call),
    "latency_by_concurrency": ("servers", _latency),
    "host_time_by_step": ("host_step", _host_step),
}
