"""A finished experiment as one file that a stranger can check."""


rule archive:
    input:
        experiment=rules.experiment.output[0],
        summary=rules.summary.output[0],
        report=rules.report.output[0],
        prompts=of_sessions(SESSION + "/prompts.parquet"),
        schedule=of_sessions(SESSION + "/schedule.parquet"),
        environment=unique(of_sessions(RAW + "/environment.json")),
        receipts=of_sessions(DERIVED + "/receipts.parquet"),
        power_trace=of_sessions(DERIVED + "/power_trace.html"),
    output:
        f"{EXPERIMENT}/{CONFIG.experiment}.zip",
    log:
        f"results/logs/{CONFIG.experiment}/archive.log",
    localrule: True
    params:
        folder=EXPERIMENT,
        code=digest("inference_energy.provenance.archive"),
    message:
        "Archive: {output}"
    shell:
        "inference-energy archive {params.folder} -o {output} 2> {log}"
