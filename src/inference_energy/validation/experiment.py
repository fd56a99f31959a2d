"""Simulation of a user's experiment: its raw files in seconds."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import structs

from inference_energy.bench.config import Node
from inference_energy.bench.hardware import SHAPES, from_config
from inference_energy.bench.live.flags import ENGINE_FLAGS
from inference_energy.bench.offline.plan import SessionPlan
from inference_energy.bench.offline.raw_files import write_session
from inference_energy.bench.offline.session import simulate
from inference_energy.config.load.arrivals import ClosedArrival
from inference_energy.config.root import Config
from inference_energy.config.servers import DummyModel, LaunchServer
from inference_energy.contracts.documents.document import read_document, write_document
from inference_energy.contracts.documents.session import SessionDocument, raw_digests
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.errors import InputError
from inference_energy.plan.cells import Cell, plan_files
from inference_energy.plan.schedule import make_prompts, make_schedule, session_requests
from inference_energy.plan.tables import digests, write_plan
from inference_energy.stages.params import StageParams, session_cells

MACHINE = "bench"


def simulate_experiment(config: Config, node: Node, raw_root: Path) -> Iterator[str]:
    """Simulate every session of an experiment; yields a line for each.

    Args:
        config: the experiment. The model is that of its server, if the bench knows its shape, else the one that the
            node names.
        node: the machine.
        raw_root: the folder of raw results to write below, under the machine `bench`.

    Raises:
        InputError: a session attaches to a server, or its model or a request does not fit.
    """
    params = StageParams(config, MACHINE, lambda: True, lambda: True)
    for name in config.run:
        server = config.servers[config.sessions[name].server]
        if not isinstance(server, LaunchServer):
            raise InputError(f"sessions.{name}.server: a running server cannot be simulated; name one of mode: launch")
        session_node = _node(node, config, server)
        cells = session_cells(config, name)
        prompts = make_prompts(cells, config.seed, session_node.shape.vocabulary)
        schedule = make_schedule(session_requests(cells, config.seed), prompts.to_batches())
        _check_single_requests(name, cells, schedule, prompts)
        frames = schedule.to_pandas(), _frame(prompts)
        spec = params.session(name).model_dump()
        plan = SessionPlan.from_spec(spec, config.idle.cold_s, *frames, model=server.model)
        session = simulate(plan, session_node)
        write_session(session, raw_root)
        folder, sources = raw_root / MACHINE / "sessions" / name, digests(plan_files(cells))
        write_plan(folder / "prompts.parquet", [prompts], PROMPTS, sources)
        write_plan(folder / "schedule.parquet", [schedule], SCHEDULE, sources)
        _note_digests(raw_root / MACHINE, plan.server, name)
        end_ns = session.phases[-1]["end_ns"]
        yield (
            f"session {name}: {(end_ns - session.origin_ns) / 1e9:.0f} s of {session_node.tensor_parallel} x "
            f"{session_node.device.label} (simulated), {len(session.client.sent.row)} requests, in {raw_root / MACHINE}"
        )


def _note_digests(machine: Path, server: str, session: str) -> None:
    """Add the digests of the raw files to session.json, as a measured session does."""
    owners = {"servers": server, "idle": server, "sessions": session}
    paths = {folder: (machine / folder / name).glob("*") for folder, name in owners.items()}
    path = machine / "sessions" / session / SessionDocument.FILE
    document = read_document(path, SessionDocument)
    write_document(path, structs.replace(document, files=raw_digests(server, session, paths)))


def _check_single_requests(session: str, cells: Sequence[Cell], schedule: pa.Table, prompts: pa.Table) -> None:
    """Refuse what the offline client cannot send: it sends single requests of known length, without think time."""
    closed = [cell.name for cell in cells if isinstance(cell.arrival, ClosedArrival)]
    untimed = pc.and_(
        pc.is_null(schedule["arrival_ns"]), pc.invert(pc.is_in(schedule["cell"], pa.array(closed, pa.string())))
    )
    waits = pc.max(schedule["think_ns"]).as_py() or 0
    if pc.any(untimed).as_py() or waits or prompts["messages"].null_count < prompts.num_rows:
        raise InputError(
            f"sessions.{session}: conversations, messages and think time are not simulated offline; leave them out, or "
            "run the session on the live bench: inference-energy bench run"
        )


def _frame(prompts: pa.Table) -> pd.DataFrame:
    """Return prompts for the bench, with token ids as lists of integers."""
    frame: pd.DataFrame = prompts.to_pandas()
    frame["token_ids"] = pd.Series([None if ids is None else ids.tolist() for ids in frame["token_ids"]], dtype=object)
    return frame


def _node(node: Node, config: Config, server: LaunchServer) -> Node:
    """Return the node with the server's model and those engine arguments that the live server knows too.

    A null argument is absent, and `no-flag: true` means `flag: false`.

    Raises:
        InputError: the shape of the model is not known, and the node names no other.
    """
    content = node.model_dump()
    arguments = {
        key.replace("-", "_"): value
        for key, value in (server.arguments | server.arguments_on_gpu).items()
        if value is not None
    }
    if arguments.get("no_enable_prefix_caching"):
        arguments["enable_prefix_caching"] = False
    model = config.models[server.model]
    if isinstance(model, DummyModel):
        content["model"] = from_config(server.model, model.architecture).model_dump()
        longest = model.architecture.get("max_position_embeddings") or node.engine.max_model_len
        content["engine"]["max_model_len"] = min(node.engine.max_model_len, longest)
    elif server.model in SHAPES:
        content["model"] = server.model
    elif "model" not in node.model_fields_set:
        raise InputError(
            f"models.{server.model}: the bench does not know its shape, as it opens no files of models; give the "
            f"content of its config.json (source: dummy, architecture), or state in the node which model to simulate: "
            f'{{"model": NAME}}, NAME one of {", ".join(SHAPES)}'
        )
    for flag, name in (("tensor_parallel_size", "tensor_parallel"), ("seed", "seed")):
        content[name] = arguments.get(flag, content[name])
    content["engine"] |= {name: arguments[flag] for flag, name in ENGINE_FLAGS.items() if flag in arguments}
    return Node.parse(content)
