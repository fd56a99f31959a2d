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
        code=code("launch"),
        inputs=inputs("launch"),
    message:
        "Check the launch of `{wildcards.session}`"
    shell:
        "inference-energy stage launch {params.inputs:q} --output {output} --log {log}"


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
        code=code("warmup"),
        inputs=inputs("warmup"),
    message:
        "Check the warm-up of `{wildcards.session}`"
    shell:
        "inference-energy stage warmup {params.inputs:q} --output {output} --log {log}"


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
        spec=spec("steady_load"),
        code=code("steady_load"),
        inputs=inputs("steady_load"),
    message:
        "Cut and check the windows of `{wildcards.session}`"
    shell:
        "inference-energy stage steady-load --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"
