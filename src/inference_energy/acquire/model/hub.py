"""A model of the Hugging Face hub: its revision resolved to a commit, its files fetched."""

import json
import subprocess
from pathlib import Path
from typing import Any

from inference_energy.acquire.vllm.build import Say
from inference_energy.errors import RunError

QUESTION = """
import json, sys
from huggingface_hub import ModelCard, snapshot_download
path = snapshot_download(sys.argv[1], revision=sys.argv[2])
try:
    license = ModelCard.load(f"{path}/README.md").data.get("license")
except Exception:
    license = None
print(json.dumps({"path": path, "license": license}))
"""


def fetch_snapshot(name: str, hub_id: str, revision: str, python: list[str], say: Say) -> tuple[Path, dict[str, Any]]:
    """The local snapshot of a hub model, and what is known of it.

    The snapshot's folder is named after the commit, so the revision is resolved even when the hub is out of reach
    and the files are already here.

    Raises:
        RunError: the model cannot be fetched; the message holds the hub client's words.
    """
    say(f"fetching {hub_id} at {revision}")
    done = subprocess.run(
        [*python, "-c", QUESTION, hub_id, revision],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise RunError(
            f"models.{name}: {hub_id} at revision {revision} cannot be fetched. Is the id right, is the hub reachable, "
            f"is HF_TOKEN set for a gated model? A copy on disk is used with source: local.\n{words}"
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    path = Path(answer["path"])
    license_name = answer["license"]
    return path, {
        "revision": path.name,
        "license": license_name,
        "license_source": "the model card" if license_name else None,
    }
