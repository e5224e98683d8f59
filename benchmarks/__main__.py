"""python3 dev.py bench: the runner, `bench.py`."""

import sys

import bench

sys.exit(bench.main())
