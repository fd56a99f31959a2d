"""A pipeline in miniature: launch the server of FOLDER/spec.pickle and hold it until something ends.

    owner.py FOLDER

It writes its pid to FOLDER/owner.pid, and FOLDER/ready once the server is ready.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from pathlib import Path

from inference_energy.acquire.server.launch import launch_server


async def main(folder: Path) -> None:
    (folder / "owner.pid").write_text(str(os.getpid()))
    async with await launch_server(pickle.loads((folder / "spec.pickle").read_bytes())) as server:
        (folder / "ready").touch()
        raise server.failure(f"the server ended: {(await server.ended()).reason}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
