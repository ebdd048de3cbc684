import sys
from pathlib import Path

# The helpers beside the tests are imported by name; with import-mode=importlib the folder is not on the path.
sys.path.insert(0, str(Path(__file__).parent))
