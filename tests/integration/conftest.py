import sys
from pathlib import Path

# Tests are imported by path, so modules beside them are found only if their folder is named.
sys.path.insert(0, str(Path(__file__).parent))
