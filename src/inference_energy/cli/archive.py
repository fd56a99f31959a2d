"""`archive` and `verify`: pack an experiment so that others can check it, and check such an archive."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inference_energy.cli.lazy_group import examples

if TYPE_CHECKING:
    from inference_energy.provenance.verify import Verification

_ARCHIVE_EXAMPLES = examples(
    "inference-energy archive results/default -o default.zip",
    "inference-energy archive results/default -o default.zip --sign ~/.ssh/id_ed25519",
    "SOURCE_DATE_EPOCH=1780000000 inference-energy archive results/default -o default.zip",
)
_VERIFY_EXAMPLES = examples(
    "inference-energy verify default.zip",
    "inference-energy verify default.zip --signed-by author.pub",
)
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("archive", epilog=_ARCHIVE_EXAMPLES)(archive)
    app.command("verify", epilog=_VERIFY_EXAMPLES)(verify)


def archive(
    experiment: Annotated[Path, typer.Argument(help="Result folder of an experiment, such as results/default.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Zip file to make.")],
    project: Annotated[
        Path, typer.Option(help="Folder of the project, with pyproject.toml and requirements/.")
    ] = Path(),
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Sign it with this SSH key, by ssh-keygen, into ARCHIVE.zip.sig beside it."),
    ] = None,
) -> None:
    """Pack an experiment: raw, derived and shown results, configuration, code, with a manifest of SHA-256 sums.

    A file that holds the value of an environment variable with a secret's name (HF_TOKEN, ..._API_KEY, ..._PASSWORD,
    ..._TOKEN, ..._SECRET) is refused. The same results give the same bytes when SOURCE_DATE_EPOCH is set.
    """
    from inference_energy.contracts.io import file_sha256
    from inference_energy.provenance.archive import prepare_archive, write_archive
    from inference_energy.provenance.signature import check_signing, remove_outdated
    from inference_energy.provenance.signature import sign as sign_archive

    if sign is not None:
        check_signing(sign)
    packing = prepare_archive(experiment, project)
    with _progress("archive", packing.size) as tick:
        manifest = write_archive(packing, output, tick=tick)
    for left_out in manifest.left_out:
        typer.echo(f"left out {left_out.path}: {left_out.why}")
    total = file_sha256(output)
    typer.echo(f"{output}: {len(manifest.members)} members, {output.stat().st_size / 1e6:.1f} MB, SHA-256 {total}")
    outdated = remove_outdated(output)
    if sign is not None:
        typer.echo(f"{sign_archive(output, sign)}: its signature")
    elif outdated:
        typer.echo(f"{outdated}: removed; it signed the archive that was here before")


def verify(
    archive: Annotated[Path, typer.Argument(help="Zip file that `inference-energy archive` made.")],
    signed_by: Annotated[
        Path | None,
        typer.Option(
            metavar="ALLOWED",
            help="Refuse it unless ARCHIVE.zip.sig is a signature by one of these: an allowed_signers file of OpenSSH, "
            "or a public key.",
        ),
    ] = None,
    max_unpacked_gb: Annotated[float, typer.Option(min=0.001, help="Refuse an archive that is larger unpacked.")] = 20,
    max_memory_gb: Annotated[float, typer.Option(min=0.001, help="Memory to compute the summary in.")] = 16,
) -> None:
    """Check an archive: every member against the manifest, every figure against the raw files.

    A forger who changes raw files and everything computed from them makes an archive that agrees with itself: only a
    signature, or a published SHA-256, tells it from the author's.

    Exit codes: 0 all agrees, 1 something differs, 2 not such an archive.
    """
    from inference_energy.errors import RunError
    from inference_energy.provenance.archive_reader import Limits
    from inference_energy.provenance.signature import signer
    from inference_energy.provenance.verify import verify as check

    signed = signer(archive, signed_by) if signed_by is not None else None
    with _progress("verify", archive.stat().st_size if archive.is_file() else 0) as tick:
        result = check(
            archive, tick, Limits(unpacked_bytes=int(max_unpacked_gb * 1e9), memory_bytes=int(max_memory_gb * 1e9))
        )
    typer.echo("\n".join([*_report(result), *_origin(archive, signed)]))
    if not result.agrees:
        raise RunError(f"{archive}: does not verify")
    typer.echo(
        f"{archive}: verified" + (", as far as one of an earlier toolkit can be" if result.of_earlier_code else "")
    )


def _report(result: "Verification") -> Iterator[str]:
    """Yield the result, line by line."""
    manifest = result.manifest
    made = f"made {manifest.created_utc} by inference-energy {manifest.toolkit}"
    yield f"archive  experiment {manifest.experiment}, {made}"
    verdict = f"{len(result.members)} at fault" if result.members else "all as it says"
    yield f"members  {len(manifest.members)} in the manifest, {verdict}"
    yield from _first_lines([f"{name}: {problem}" for name, problem in result.members.items()])
    if result.failure:
        yield f"figures  {result.failure}"
    else:
        verdict = (
            f"{len(result.differences)} difference(s)" if result.differences else "all equal to the stored summary"
        )
        yield f"figures  {result.figures} recomputed from raw files, {verdict}"
    yield from _first_lines(result.differences)
    yield "code     " + ("differs from this installation" if result.changed_code else "the same as this installation's")
    yield from (f"warning  {text}" for text in result.warnings)


def _origin(archive: Path, signed: str | None) -> Iterator[str]:
    """Yield what is known of the author, and what no comparison of the archive with itself can find."""
    from inference_energy.contracts.io import file_sha256
    from inference_energy.provenance.signature import signature_path

    yield f"sha256   {file_sha256(archive)}"
    if signed is not None:
        yield f"signed   {signed}"
        yield "limits   the signer vouches for the measurement: a sensor or server that told lies is not found"
        return
    yield "signed   not checked" + ("" if signature_path(archive).is_file() else ": there is no signature beside it")
    yield (
        "limits   a forgery that agrees with itself is not found, such as half the power in every file, or a simulated "
        "run relabelled as measured:"
    )
    yield "         compare the SHA-256 with one that its author published, or give --signed-by"


def _first_lines(lines: list[str]) -> Iterator[str]:
    yield from (f"         {line}" for line in lines[:_SHOWN])
    if len(lines) > _SHOWN:
        yield f"         and {len(lines) - _SHOWN} more"


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a transient progress bar on a terminal, nothing elsewhere; yield the function that advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(name, total=total or None)
        yield lambda size: progress.advance(task, size)
