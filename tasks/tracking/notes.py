"""Descriptions in Markdown, which MLflow's pages show of a run and of a version of a model."""

from __future__ import annotations

from collections.abc import Mapping

# Read on the page, which asks the server that it came from.
_ARTIFACT = "get-artifact?path={path}&run_uuid={run}"


def network_note(
    what: str,
    identifier: str,
    num_parameters: int,
    macs: int,
    scores: Mapping[str, float],
    drawing: str = "",
) -> str:
    """What a network is, costs and scores, with its drawing.

    Args:
        what: as `Candidate 3`.
        identifier: of the architecture.
        scores: by name; those from 0 to 1 whose names end in iou are shown in per cent.
        drawing: from `artifact_link`.
    """
    lines = [
        f"{what}: the architecture `{identifier}` with {num_parameters:,} parameters and "
        f"{macs / 1e9:.2f} GMACs."
    ]
    if scores:
        lines.append("\n".join(f"- {name}: {_shown(name, scores[name])}" for name in scores))
    if drawing:
        lines.append(f"![the architecture]({drawing})")
    return "\n\n".join(lines)


def artifact_link(run_id: str, path: str) -> str:
    """The address of a run's artifact, for MLflow's own pages."""
    return _ARTIFACT.format(path=path, run=run_id)


def _shown(name: str, value: float) -> str:
    if name.lower().endswith("iou"):
        return f"{100 * value:.1f} %"
    return f"{value:.1f} ms" if name == "latency" else f"{value:.4f}"
