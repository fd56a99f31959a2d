"""A finished experiment as one file that a stranger can check."""


rule archive:
    input:
        experiment=rules.experiment.output[0],
        summary=rules.summary.output[0],
        report=rules.report.output[0],
        prompts=of_sessions(raw("sessions/{session}/prompts.parquet")),
        schedule=of_sessions(raw("sessions/{session}/schedule.parquet")),
        environment=unique(of_sessions(raw("environment.json"))),
        receipts=of_sessions(derived("{session}/receipts.parquet")),
        calibration=CALIBRATION,
        estimate_calibration=ESTIMATE_CALIBRATION,
        power_trace=of_sessions(derived("{session}/power_trace.html")),
    output:
        f"{EXPERIMENT}/{CONFIG.experiment}.zip",
    log:
        f"results/logs/{CONFIG.experiment}/archive.log",
    localrule: True
    params:
        folder=lambda wildcards, input: folder_of(input.summary),
        code=digest("inference_energy.provenance.archive"),
    message:
        "Pack the archive {output}"
    shell:
        "inference-energy archive {params.folder} -o {output} 2> {log}"
