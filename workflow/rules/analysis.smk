"""From windows to energy, receipts and the cost of a token."""


rule integrate:
    input:
        session=raw("sessions/{session}/session.json"),
        phases=raw("sessions/{session}/phases.parquet"),
        power=raw("sessions/{session}/power.parquet"),
        idle=of_server(raw("idle/{server}/idle.json")),
        idle_power=of_server(raw("idle/{server}/power.parquet")),
        steady_load=rules.steady_load.output,
        calibration=CALIBRATION,
    output:
        derived("{session}/energy.json"),
    log:
        logs("derived/{session}/integrate.log"),
    localrule: True
    params:
        spec=spec("integrate"),
        code=code("integrate"),
        inputs=inputs("integrate"),
    message:
        "Compute the energy of the windows of `{wildcards.session}`"
    shell:
        "inference-energy stage integrate --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"


rule attribute:
    input:
        requests=raw("sessions/{session}/requests.parquet"),
        energy=rules.integrate.output,
    output:
        derived("{session}/receipts.parquet"),
    log:
        logs("derived/{session}/attribute.log"),
    localrule: True
    params:
        spec=spec("attribute"),
        code=code("attribute"),
        inputs=inputs("attribute"),
    message:
        "Attribute energy to the requests of `{wildcards.session}`"
    shell:
        "inference-energy stage attribute --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"


rule fit:
    input:
        energy=sessions_of_server(derived("{session}/energy.json")),
        steady_load=sessions_of_server(derived("{session}/steady_load.json")),
    output:
        derived("fits/{server}.json"),
    log:
        logs("derived/fit_{server}.log"),
    localrule: True
    params:
        spec=spec("fit"),
        code=code("fit"),
        inputs=inputs("fit"),
    message:
        "Fit what a token costs on `{wildcards.server}`"
    shell:
        "inference-energy stage fit --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"
