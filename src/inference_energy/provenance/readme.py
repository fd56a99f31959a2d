"""README.txt of an archive: what it is, and how to check it with and without the toolkit."""

from inference_energy.provenance.manifest import Manifest

NAME = "README.txt"

_TEXT = """\
Measured energy of LLM serving: experiment `{experiment}`
{rule}

Made {created_utc} by inference-energy {toolkit}, code {commit}.

{layout}

To check it: install inference-energy (the archived code: pip install --require-hashes -r
code/requirements/requirements.lock, then pip install --no-deps ./code) and write

    inference-energy verify {experiment}.zip

which compares every member with the manifest, computes the summary anew from the raw Parquet files, and compares each
figure with results/{experiment}/summary.json. Derived files, pages and logs are compared with the manifest only.

Without the toolkit, Python alone checks the members, in the unpacked folder:

    python3 -c "import json,hashlib,pathlib as p; print([m['path'] for m in json.load(open('manifest.json'))['members']
    if hashlib.sha256(p.Path(m['path']).read_bytes()).hexdigest() != m['sha256']] or 'all members are as archived')"

The manifest is not signed: whoever changes a member can change the manifest too. To pin an archive, publish the SHA-256
of the zip file itself.
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
    """The text for an archive with this manifest (its members are not looked at)."""
    commit = facts.code.get("git_commit") or "of unknown commit"
    if facts.code.get("git_dirty"):
        commit += " with changes that were not committed"
    title = f"Measured energy of LLM serving: experiment `{facts.experiment}`"
    places = {place.format(experiment=facts.experiment): text for place, text in _LAYOUT.items()}
    width = max(map(len, places))
    return _TEXT.format(
        layout="\n".join(f"{place:<{width}}  {text}" for place, text in places.items()),
        experiment=facts.experiment,
        rule="=" * len(title),
        created_utc=facts.created_utc,
        toolkit=facts.toolkit,
        commit=commit,
    ).encode()
