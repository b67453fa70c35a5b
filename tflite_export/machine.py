"""Names the machine that a figure was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path


def machine_facts() -> dict[str, str | int]:
    """Returns `cpu`, `cores` (that this process may use), `os`, `python` and `ai_edge_litert`."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "ai_edge_litert": importlib.metadata.version("ai-edge-litert"),
    }


def _cores() -> int:
    return os.cpu_count() or 1


def _cpu() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
