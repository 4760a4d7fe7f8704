"""What do data as large as ImageNet-1k and ImageNet-21k cost: a start, features, the end of a run?

    python benchmarks/data_scale.py end --classes 21843 --kill 60 --checkpoint-seconds 1
    python benchmarks/data_scale.py features
    python benchmarks/data_scale.py start make /tmp/data_scale

The first word is the part, a file `data_scale_PART.py` with options of its own (`--help`). Each part makes
its own data.
"""

import importlib
import sys
from pathlib import Path


def parts() -> list[str]:
    """Returns the names of the parts."""
    files = Path(__file__).parent.glob("data_scale_*.py")
    return sorted(path.stem.removeprefix("data_scale_") for path in files)


def main() -> None:
    """Runs a part."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in parts():
        raise SystemExit(f"name a part: {', '.join(parts())}; got {name!r}")
    del sys.argv[1]
    importlib.import_module(f"data_scale_{name}").main()


if __name__ == "__main__":
    main()
