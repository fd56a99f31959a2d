"""What people read: the summary, the report, the power traces."""


rule experiment:
    output:
        f"{EXPERIMENT}/experiment.json",
    log:
        f"results/logs/{CONFIG.experiment}/experiment.log",
    localrule: True
    params:
        spec=spec("experiment"),
        code=code("experiment"),
    message:
        "Note the configuration and the version of the code"
    shell:
        "inference-energy stage experiment --spec {params.spec:q} --output {output} --log {log}"


rule summary:
    input:
        session=of_sessions(raw("sessions/{session}/session.json")),
        launch=of_sessions(derived("{session}/launch.json")),
        warmup=of_sessions(derived("{session}/warmup.json")),
        steady_load=of_sessions(derived("{session}/steady_load.json")),
        energy=of_sessions(derived("{session}/energy.json")),
        carbon=of_sessions(derived("{session}/carbon.json")),
        fit=unique(of_sessions(derived("fits/{server}.json"))),
        estimate=of_sessions(derived("{session}/estimates.json")),
        metrics=rules.metrics.output[0],
    output:
        report(
            f"{EXPERIMENT}/summary.json",
            caption="../report/summary.rst",
            category="Energy",
        ),
    log:
        f"results/logs/{CONFIG.experiment}/summary.log",
    localrule: True
    params:
        spec=spec("summary"),
        code=code("summary"),
        inputs=inputs("summary"),
    message:
        "Gather all figures of the experiment"
    shell:
        "inference-energy stage summary --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"


rule report:
    input:
        summary=rules.summary.output[0],
        environments=of_sessions(raw("sessions/{session}/environment.json")),
        session=of_sessions(raw("sessions/{session}/session.json")),
        power=of_sessions(raw("sessions/{session}/power.parquet")),
        phases=of_sessions(raw("sessions/{session}/phases.parquet")),
        requests=of_sessions(raw("sessions/{session}/requests.parquet")),
        receipts=of_sessions(derived("{session}/receipts.parquet")),
        idle=of_sessions(raw("idle/{server}/power.parquet")),
        server_environment=of_sessions(raw("servers/{server}/server_environment.json")),
        model=of_sessions(raw("servers/{server}/model.json")),
    output:
        report=report(
            f"{EXPERIMENT}/report.html",
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        f"results/logs/{CONFIG.experiment}/report.log",
    localrule: True
    params:
        sessions=[
            {"session": names.session, "machine": names.machine}
            for names in PARAMS.experiment().sessions
        ],
        code=digest("inference_energy.present.report:write_report"),
        script=file_digest(Path("scripts/report.py")),
    message:
        "Write the report {output.report}"
    script:
        "../../scripts/report.py"


rule power_trace:
    input:
        power=raw("sessions/{session}/power.parquet"),
        phases=raw("sessions/{session}/phases.parquet"),
        energy=rules.integrate.output[0],
    output:
        page=report(
            derived("{session}/power_trace.html"),
            caption="../report/power_trace.rst",
            category="Power",
        ),
    log:
        logs("derived/{session}/power_trace.log"),
    localrule: True
    params:
        session="{session}",
        machine="{machine}",
        code=digest("inference_energy.present.trace:write_trace_page"),
        script=file_digest(Path("scripts/power_trace.py")),
    message:
        "Plot the power of `{wildcards.session}`"
    script:
        "../../scripts/power_trace.py"
