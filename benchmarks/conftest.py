"""Only the benchmarks for pytest are collected here; the other files are programs."""

from pathlib import Path

collect_ignore = [
    str(path.relative_to(Path(__file__).parent))
    for path in Path(__file__).parent.rglob("*.py")
    if not path.name.startswith("test_")
]
