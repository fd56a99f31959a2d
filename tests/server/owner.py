"""A pipeline in miniature, for the guardian's tests: launch the stub server, do as told, stop it.

    owner.py FOLDER PORT {end,raise,wait} [STUB_NAME=value ...]

It writes its pid to FOLDER/owner.pid, and FOLDER/ready once the server is ready. ``wait`` goes on until FOLDER/go
exists, or fails when the server ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from inference_energy.acquire.server.launch import RunningServer, launch_server
from inference_energy.acquire.server.settings import LaunchSpec
from inference_energy.errors import RunError


async def work(server: RunningServer, folder: Path, then: str) -> None:
    if then == "raise":
        raise RunError("the load failed")
    while then == "wait" and not (folder / "go").exists():
        if not server.alive():
            raise server.failure(f"the server ended: {(await server.ended()).reason}")
        await asyncio.sleep(0.05)


async def main(folder: Path, port: int, then: str, environment: dict[str, str]) -> None:
    (folder / "owner.pid").write_text(str(os.getpid()))
    spec = LaunchSpec(
        model=str(folder / "model"),
        served_model_name="stub",
        port=port,
        log_path=folder / "server.log",
        status_path=folder / "server.json",
        interpreter=Path(sys.executable),
        script=Path(__file__).parents[1] / "stub_server.py",
        environment={"STUB_PIDS_FILE": str(folder / "pids"), **environment},
        ready_timeout_s=60.0,
        grace_s=1.0,
    )
    async with await launch_server(spec) as server:
        (folder / "ready").touch()
        await work(server, folder, then)


if __name__ == "__main__":
    asyncio.run(
        main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], dict(item.split("=", 1) for item in sys.argv[4:]))
    )
