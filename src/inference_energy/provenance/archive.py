"""An experiment packed into one zip file that others can check, with a README.txt that says how."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inference_energy.contracts.io import atomic_write, read_json
from inference_energy.errors import InputError, RunError
from inference_energy.provenance.archive_members import ArchiveMember, Collection, collect_code, collect_results
from inference_energy.provenance.experiment_json import NAME as PLAN
from inference_energy.provenance.manifest import NAME, Entry, Manifest, check_names, created_utc
from inference_energy.provenance.secrets import SecretLocations, Secrets, secret_locations

README = "README.txt"

_TEXT = """\
Measured energy of LLM serving: experiment `{experiment}`
{rule}

Made {created_utc} by inference-energy {toolkit}, code {commit}.

{layout}

To check it: install inference-energy (the archived code: pip install --require-hashes -r
code/requirements/requirements.lock, then pip install --no-deps ./code) and write

    inference-energy verify {experiment}.zip

which compares every member with the manifest, computes summary and derived files anew from the raw files, compares
each figure, follows the SHA-256 sums from session.json to summary.json and report.html, and writes the report again.
Logs and code are compared with the manifest only.

Without the toolkit, Python alone checks the members, in the unpacked folder:

    python3 -c "import json,hashlib,pathlib as p; print([m['path'] for m in json.load(open('manifest.json'))['members']
    if hashlib.sha256(p.Path(m['path']).read_bytes()).hexdigest() != m['sha256']] or 'all members are as archived')"

Whoever changes the raw files and all that follows from them makes an archive that agrees with itself. To pin an
archive, publish the SHA-256 of the zip file, or sign it: inference-energy archive --sign KEY, and inference-energy
verify --signed-by KEY.pub.
"""


_LAYOUT = {
    "results/{experiment}/report.html": "the report; open it in a browser, it needs no network",
    "results/{experiment}/summary.json": "every figure with unit, basis, boundary and grade, or why it is missing",
    "results/{experiment}/experiment.json": "the plan and the whole configuration",
    "results/{experiment}/calibration.json": "what the sensors were calibrated with, where that was done",
    "results/raw/": "what was recorded, by machine: power, requests, server metrics, phases (Parquet)",
    "results/derived/": "what was computed from it",
    "results/logs/": "messages of the server and of the steps",
    "code/": "the toolkit's source, its lock file, and changes that were not committed",
    "manifest.json": "size and SHA-256 of every member but itself",
}


def readme(facts: Manifest) -> bytes:
    """Return the text of README.txt for a manifest, whose members are not needed."""
    commit = facts.code.get("git_commit") or "of unknown commit"
    if facts.code.get("git_dirty"):
        commit += " with changes that were not committed"
    title = f"Measured energy of LLM serving: experiment `{facts.experiment}`"
    lines = {path.format(experiment=facts.experiment): text for path, text in _LAYOUT.items()}
    width = max(map(len, lines))
    return _TEXT.format(
        layout="\n".join(f"{path:<{width}}  {text}" for path, text in lines.items()),
        experiment=facts.experiment,
        rule="=" * len(title),
        created_utc=facts.created_utc,
        toolkit=facts.toolkit,
        commit=commit,
    ).encode()


_CHUNK = 1 << 20
_STORED = {".parquet", ".zip", ".gz", ".zst"}
"""Already compressed."""

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Packing:
    """The members of an archive to be written, checked as far as possible without reading the files."""

    collection: Collection
    code: dict[str, object]
    members: list[ArchiveMember]
    secrets: SecretLocations = field(default_factory=SecretLocations)
    """Locations of secrets according to the experiment's configuration."""

    @property
    def size(self) -> int:
        """Return the number of bytes that will be read."""
        return sum(member.size for member in self.members)


def prepare_archive(experiment: Path, project: Path) -> Packing:
    """Find the files that belong to an experiment's archive.

    Args:
        experiment: the experiment's folder below the results folder.
        project: the project's folder, for its lock file and its commit.

    Raises:
        InputError: a file is missing.
    """
    collection = collect_results(experiment)
    code, code_members = collect_code(project)
    members = sorted([*collection.members, *code_members], key=lambda member: member.name)
    try:
        check_names([member.name for member in members])
    except ValueError as error:
        raise InputError(f"a file cannot be archived: {error}; rename it") from error
    return Packing(collection, code, members, secret_locations(read_json(experiment / PLAN)))


def write_archive(
    packing: Packing, output: Path, environ: Mapping[str, str] | None = None, tick: Tick | None = None
) -> Manifest:
    """Write the archive under a temporary name and rename it.

    The same files give the same bytes, except for the manifest's `created_utc` (see `manifest.created_utc`).

    Args:
        packing: the result of `prepare_archive`.
        output: the zip file to make.
        environ: environment variables (default: this process's); the values of those that look secret must not
            occur in any member.
        tick: called after each chunk, with the number of bytes read.

    Raises:
        InputError: a member holds a secret, or `output` does not end in .zip.
        RunError: a file cannot be read, or the archive cannot be written.
    """
    if output.suffix != ".zip":
        raise InputError(f"--output {output}: the name must end in .zip")
    facts = Manifest(
        experiment=packing.collection.experiment,
        created_utc=created_utc(),
        code=packing.code,
        left_out=packing.collection.left_out,
        members=[],
    )
    secrets = Secrets(os.environ if environ is None else environ, packing.secrets)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{output.parent}: this folder cannot be made: {error}") from error
    try:
        with atomic_write(output) as partial, zipfile.ZipFile(partial, "w") as archive:
            first = ArchiveMember(README, readme(facts))
            entries = [_add(archive, member, secrets, tick) for member in (first, *packing.members)]
            manifest = facts.model_copy(update={"members": entries})
            _add(archive, ArchiveMember(NAME, manifest.text()), secrets, None)
    except OSError as error:
        raise RunError(f"{output}: cannot be written: {error}") from error
    return manifest


def _add(archive: zipfile.ZipFile, member: ArchiveMember, secrets: Secrets, tick: Tick | None) -> Entry:
    """Copy a member into the archive; exactly the bytes written are hashed and searched for secrets."""
    info = zipfile.ZipInfo(member.name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    info.compress_type = zipfile.ZIP_STORED if Path(member.name).suffix in _STORED else zipfile.ZIP_DEFLATED
    info.file_size = member.size
    size, total, scanner = 0, hashlib.sha256(), secrets.scanner()
    if isinstance(member.source, Path) and member.source.suffix == ".parquet":
        _refuse(member, secrets.in_parquet(member.source))
    with member.open() as source, archive.open(info, "w") as target:
        while chunk := source.read(_CHUNK):
            _refuse(member, scanner.feed(chunk))
            target.write(chunk)
            total.update(chunk)
            size += len(chunk)
            if tick:
                tick(len(chunk))
    return Entry(path=member.name, size=size, sha256=total.hexdigest())


def _refuse(member: ArchiveMember, secret: str | None) -> None:
    if not secret:
        return
    name = member.source if isinstance(member.source, Path) else member.name
    if "/" in secret:
        raise InputError(
            f"{name}: holds a value of the credentials_file {secret}, which must not be published; remove it"
        )
    raise InputError(
        f"{name}: holds the value of the environment variable {secret}, which must not be published; remove it "
        f"from the file, or unset {secret} if it is no secret"
    )
