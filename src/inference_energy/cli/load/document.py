"""The command line's options as a `LoadTest`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from inference_energy.api.load_test.settings import LoadTest, load_test_problems, prompts_beside
from inference_energy.cli.load import mini_syntax
from inference_energy.cli.load.options import BY_NAME, OPTIONS, Option, option_at, spell, tags
from inference_energy.contracts.outside import path_name
from inference_energy.errors import InputError

Typed = Mapping[str, Any]
PLANNED = "planned"
"""Stands for a source of prompts: those of an earlier plan."""


def load_test(values: Typed) -> LoadTest:
    """Return the load test of options by name; those that were not typed are None, False, an empty list, or missing.

    Raises:
        InputError: an option cannot be used, or two contradict each other; the message names them and what to write.
    """
    typed = {name: value for name, value in values.items() if value is not None and value is not False and value != []}
    _check_endings(typed)
    process, because = _process(typed)
    source = _source(typed, process)
    _check_members(typed, process, because, source)
    _check_pairs(typed)
    document = _document(typed, process, source)
    _check_limits(document)
    try:
        return LoadTest.model_validate(document)
    except InputError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        raise _about_options(error.__cause__, document, process, because) from error


def _process(typed: Typed) -> tuple[str, str]:
    """Return how requests arrive, and the option that says or implies it."""
    processes = tags(BY_NAME["arrival"])
    if process := typed.get("arrival"):
        if process not in processes:
            raise InputError(f"--arrival {process}: write one of {', '.join(processes)}")
        if process in BY_NAME and process not in typed:
            raise InputError(f"--arrival {process}: write {BY_NAME[process].example} too")
        return process, f"--arrival {process}"
    for name, implied in (("schedule", "schedule"), ("trace", "trace"), ("qps", "poisson")):
        if name in typed:
            return implied, BY_NAME[name].flag
    return "closed", "a closed loop (there is no --qps and no --arrival)"


def _source(typed: Typed, process: str) -> str:
    """Return where prompts come from: by the file's ending, and of a .json by its content."""
    if "prompts" not in typed:
        if not typed.keys() & {"prompt_length", "trace", "schedule"}:
            text = "write a file with prompts, or --prompt-length normal:256:64 for synthetic ones"
            raise InputError(text, key="--prompts")
        return "synthetic"
    path = Path(typed["prompts"])
    if path.suffix == ".parquet":
        if process != "schedule":
            raise InputError(f"{path}: a prompts.parquet goes with a --schedule; write it too", key="--prompts")
        return PLANNED
    if path.suffix not in (".json", ".jsonl"):
        return "file"
    head = _head("--prompts", path).lstrip()
    is_list_of_other = head.startswith("[") and not re.search(r'"(prompt|token_ids|messages)"\s*:', head)
    return "sharegpt" if is_list_of_other or re.search(r'"conversations?"\s*:', head) else "jsonl"


def _check_endings(typed: Typed) -> None:
    for name, endings in (("output", (".csv", ".parquet")), ("save_schedule", (".parquet",))):
        if name in typed and Path(typed[name]).suffix not in endings:
            raise InputError(f"{typed[name]} must end in {' or '.join(endings)}", key=BY_NAME[name].flag)


def _check_members(typed: Typed, process: str, because: str, source: str) -> None:
    """Refuse options for another arrival process, or for another source of prompts."""
    for option in OPTIONS:
        if option.name not in typed or option.name in ("arrival", "prompts"):
            continue
        members = tags(option)
        if option.key.startswith("arrival.") and process not in members:
            raise InputError(f"{option.flag} and {because}: {option.flag} {_purpose(option, members)}")
        if any(key.startswith("workload.prompts.") for key in option.keys) and source not in members:
            if "prompts" not in typed:
                raise InputError(f"{option.flag}: write --prompts FILE too")
            kind = "synthetic prompts" if members == ["synthetic"] else "prompts of a file"
            raise InputError(f"{option.flag} and --prompts: {option.flag} is for {kind}; leave one of the two out")


def _purpose(option: Option, members: list[str]) -> str:
    if option.tag:
        return "says when requests are sent, too; leave one of the two out"
    if members[0] in BY_NAME:
        return f"belongs to a {members[0]}; leave it out, or write {BY_NAME[members[0]].example}"
    return f"is for --arrival {', '.join(members)}; leave one of the two out"


def _check_pairs(typed: Typed) -> None:
    for option in (option for option in OPTIONS if option.name in typed):
        if option.excludes and option.excludes[0] in typed:
            raise InputError(f"{option.flag} and {BY_NAME[option.excludes[0]].flag}: {option.excludes[1]}")
        if option.needs and option.needs[0] not in typed:
            raise InputError(f"{option.flag}: write {option.needs[1]} too")


def _check_limits(document: dict[str, Any]) -> None:
    """Refuse limits of times that are not known, in the words of the option's own syntax."""
    limits, workload = document.get("limits", {}), document["workload"]
    if workload.get("stream") is False and limits.keys() - {"e2e_s"}:
        raise InputError("--limits and --no-stream: without a stream only e2e is known; write --limits e2e=10")
    if "itl_s" in limits and not workload.get("chunk_times"):
        raise InputError("--limits itl: times between tokens need the time of every chunk; write --chunks too")


def _document(typed: Typed, process: str, source: str) -> dict[str, Any]:
    """Return the content of a `LoadTest`."""
    prompts: dict[str, Any] = {"source": "synthetic", "form": "token_ids" if "vocabulary" in typed else "words"}
    if source not in ("synthetic", PLANNED):
        prompts = {"source": source, "path": typed["prompts"]}
    document: dict[str, Any] = {"arrival": _arrival(typed, process), "workload": {"prompts": prompts}}
    if "power" in typed:
        document["power"] = {}
    for option in OPTIONS:
        value = typed.get(option.name)
        if value is None and option.default is not None:
            default_fits = (process if option.key.startswith("arrival.") else source) in tags(option)
            value = option.default if default_fits else None
        if value is None or option.name in ("arrival", "power", "prompts", "qps"):
            continue
        if option.parse:
            value = option.parse(option.flag, value)
        elif option.is_flag and option.constant is not None:
            value = option.constant
        *sections, name = option.key.split(".")
        section = document
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return document


def _arrival(typed: Typed, process: str) -> dict[str, Any]:
    """Return the keys of an arrival that do not follow from one option each."""
    arrival: dict[str, Any] = {"process": process}
    if "qps" in typed:
        arrival |= mini_syntax.rate(typed["qps"], process)
    if "burstiness" in typed and process != "gamma":
        arrival["kind"] = "gamma"
    if process == "trace":
        arrival["format"] = _trace_format(Path(typed["trace"]))
    if process == "schedule":
        arrival["prompts"] = _replayed_prompts(typed)
    return arrival


def _trace_format(path: Path) -> str | None:
    """Return the format of a trace file by its ending and its first line; None if it is not known."""
    line = _head("--trace", path).lstrip().partition("\n")[0]
    if path.suffix == ".jsonl" or line.startswith("{"):
        return "bailian" if re.search(r'"(parent_)?chat_id"\s*:', line) else "mooncake"
    names = line.lower().replace(" ", "").replace("_", "")
    formats = {"contexttokens": "azure", "requesttokens": "burstgpt"}
    return next((name for column, name in formats.items() if column in names), None)


def _head(flag: str, path: Path) -> str:
    """Return the beginning of a file, for recognition only: whoever reads the file says what is wrong in it."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return file.read(4096)
    except OSError as error:
        raise InputError(f"{path_name(path)} cannot be read: {error.strerror}", key=flag) from error
    except ValueError as error:
        raise InputError(f"{path_name(path)} cannot be the name of a file", key=flag) from error


def _replayed_prompts(typed: Typed) -> str | None:
    """Return the prompts of a replay: those named, else those beside the schedule, unless others are asked for."""
    if "prompts" in typed:
        return typed["prompts"] if typed["prompts"].endswith(".parquet") else None
    beside = prompts_beside(Path(typed["schedule"]))
    return str(beside) if "prompt_length" not in typed and beside.is_file() else None


def _about_options(error: ValidationError, document: Typed, process: str, because: str) -> InputError:
    """Return pydantic's first error as one about the option at its location."""
    first = error.errors()[0]
    if first["type"] == "missing":
        return InputError(f"{because}: write {option_at([*map(str, first['loc'])], process).example} too")
    return InputError(load_test_problems(error, document)[0].spelled(spell(process)))
