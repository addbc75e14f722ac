"""A plot of what the commands take over the number of stores, as PNG and SVG. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.bench.measured import PROCESSES, Cost

_HUES = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1")


def save(lives: Mapping[int, Mapping[str, Cost]], directory: Path, caption: str) -> list[Path]:
    """Write the plot, and return its paths.

    Args:
        lives: {number of stores: {command: what it took}}.
        caption: date and machine.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    counts = sorted(lives)
    commands = list(lives[counts[0]])
    with rc_context({"svg.hashsalt": "synapse-media", "font.size": 9}):
        figure = Figure(figsize=(9.5, 4.2), layout="constrained")
        cpu, memory = figure.subplots(1, 2)
        for command, hue in zip(commands, _HUES, strict=True):
            cpu.plot(counts, [lives[n][command].cpu / n for n in counts], "o-", color=hue, label=command)
        cpu.set(xscale="log", yscale="log", xlabel="stores", ylabel="CPU seconds per store")
        for process, hue in zip(PROCESSES, _HUES, strict=False):
            most = [max(cost.parts[process].memory for cost in lives[n].values()) for n in counts]
            memory.plot(counts, most, "o-", color=hue, label=process)
        memory.set(xscale="log", ylim=(0, None), xlabel="stores", ylabel="most memory in any command, MiB")
        for panel in (cpu, memory):
            panel.set_xticks(counts, list(map(str, counts)))
            panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
            panel.grid(alpha=0.3)
            panel.legend()
        figure.suptitle(caption, fontsize=8)
        paths = [directory / f"cost-to-run.{form}" for form in ("png", "svg")]
        for path in paths:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
    return paths
