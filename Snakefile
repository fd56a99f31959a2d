"""Inference Energy Toolkit: measured energy of LLM serving.

`snakemake` runs the experiment that config.yaml describes; `snakemake --configfile config/protocol.yaml` lays another
configuration over it. Results lie in results/<experiment>/.
"""

from snakemake.utils import min_version

min_version("9.5")


# Reads the configuration before Snakemake does, whose messages name neither key nor line.
include: "workflow/rules/common.smk"


configfile: "config.yaml"


include: "workflow/rules/acquire.smk"
include: "workflow/rules/stages.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/estimate.smk"
include: "workflow/rules/impact.smk"
include: "workflow/rules/metrics.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/archive.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        f"{EXPERIMENT}/summary.json",
        f"{EXPERIMENT}/report.html",
        of_sessions(derived("{session}/power_trace.html")),
        f"{EXPERIMENT}/{CONFIG.experiment}.zip",
    message:
        "Everything is in results/"


onstart:
    note_run(SNAKEMAKE_FOLDER)


onerror:
    for failure in failures(Path("results/logs"), STARTED_S):
        print(f"\ninference-energy: {failure}", file=sys.stderr)


onsuccess:
    # A run that was asked for single files may have made no summary.
    if Path(EXPERIMENT, "summary.json").is_file():
        shell(f"inference-energy show {EXPERIMENT}")
