"""What nas_core asks of the system's memory."""

import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Prints the KiB of this process that lie in huge pages.
ALLOCATE = """
import re
from pathlib import Path
import nas_core
import torch
kept = [torch.ones(8 * 2**20) for _ in range(4)]
print(re.search(r"AnonHugePages:\\s+(\\d+)", Path("/proc/self/smaps_rollup").read_text())[1])
"""


@pytest.mark.skipif(
    not PAGES.exists() or "[never]" in PAGES.read_text(), reason="there are no huge pages"
)
def test_large_tensors_lie_in_huge_pages() -> None:
    found = subprocess.run([sys.executable, "-c", ALLOCATE], capture_output=True, text=True)
    assert int(found.stdout) > 0, found.stderr
