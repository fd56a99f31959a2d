"""Estimates beside what was measured."""


rule estimate:
    input:
        session=raw("sessions/{session}/session.json"),
        model=of_server(raw("servers/{server}/model.json")),
        environment=raw("sessions/{session}/environment.json"),
        requests=raw("sessions/{session}/requests.parquet"),
        server_metrics=raw("sessions/{session}/server_metrics.parquet"),
        steady_load=rules.steady_load.output,
        energy=rules.integrate.output,
        calibration=ESTIMATE_CALIBRATION,
    output:
        derived("{session}/estimates.json"),
    log:
        logs("derived/{session}/estimate.log"),
    localrule: True
    params:
        spec=spec("estimate"),
        code=code("estimate"),
        inputs=inputs("estimate"),
    message:
        "Compute every estimator beside the windows of `{wildcards.session}`"
    shell:
        "inference-energy stage estimate --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"
