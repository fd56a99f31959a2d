"""Cheap rules that check and cut what a session recorded."""


rule launch:
    input:
        session=raw("sessions/{session}/session.json"),
        phases=raw("sessions/{session}/phases.parquet"),
    output:
        derived("{session}/launch.json"),
    log:
        logs("derived/{session}/launch.log"),
    localrule: True
    params:
        code=digest("inference_energy.analysis.warmup"),
    message:
        "Launch: check that of `{wildcards.session}`"
    shell:
        "inference-energy stage launch --session {input.session} --phases {input.phases} --output {output} 2> {log}"


rule warmup:
    input:
        session=raw("sessions/{session}/session.json"),
        phases=raw("sessions/{session}/phases.parquet"),
        requests=raw("sessions/{session}/requests.parquet"),
        launch=rules.launch.output,
    output:
        derived("{session}/warmup.json"),
    log:
        logs("derived/{session}/warmup.log"),
    localrule: True
    params:
        code=digest("inference_energy.analysis.warmup"),
    message:
        "Warm-up: check that of `{wildcards.session}`"
    shell:
        "inference-energy stage warmup --session {input.session} --phases {input.phases}"
        " --requests {input.requests} --output {output} 2> {log}"


rule steady_load:
    input:
        session=raw("sessions/{session}/session.json"),
        phases=raw("sessions/{session}/phases.parquet"),
        requests=raw("sessions/{session}/requests.parquet"),
        server_metrics=raw("sessions/{session}/server_metrics.parquet"),
        power=raw("sessions/{session}/power.parquet"),
        warmup=rules.warmup.output,
    output:
        derived("{session}/steady_load.json"),
    log:
        logs("derived/{session}/steady_load.log"),
    localrule: True
    params:
        spec=as_text(SPECS.analysis(SteadyLoadConfig)),
        code=digest("inference_energy.analysis.steady_load"),
    message:
        "Steady load: cut and test the windows of `{wildcards.session}`"
    shell:
        "inference-energy stage steady-load --spec {params.spec:q} --session {input.session} --phases {input.phases}"
        " --requests {input.requests} --server-metrics {input.server_metrics} --power {input.power}"
        " --output {output} 2> {log}"
