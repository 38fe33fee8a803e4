import os
import sys
from pathlib import Path

# Many short tests on few cores: one thread each is several times faster than all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests are imported by path, so modules beside them are found only if their folder is named.
sys.path.insert(0, str(Path(__file__).parent))
