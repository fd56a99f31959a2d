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
        spec=as_text(SPECS.analysis(EnergyConfig)),
        code=digest("inference_energy.analysis.energy"),
        calibration=lambda wildcards, input: [
            word for path in input.calibration for word in ("--calibration", path)
        ],
    message:
        "Integrate: energy of the windows of `{wildcards.session}`"
    shell:
        "inference-energy stage integrate --spec {params.spec:q} --session {input.session} --phases {input.phases}"
        " --power {input.power} --idle {input.idle} --idle-power {input.idle_power}"
        " --steady-load {input.steady_load} {params.calibration:q} --output {output} 2> {log}"


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
        spec=as_text(SPECS.analysis(AttributionConfig)),
        code=digest("inference_energy.analysis.attribution"),
    message:
        "Attribute: energy of each request of `{wildcards.session}`"
    shell:
        "inference-energy stage attribute --spec {params.spec:q} --requests {input.requests} --energy {input.energy}"
        " --output {output} 2> {log}"


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
        spec=as_text(SPECS.analysis(FitConfig)),
        code=digest("inference_energy.analysis.fit.models"),
        energy=lambda wildcards, input: [f"--energy {path}" for path in input.energy],
        steady_load=lambda wildcards, input: [
            f"--steady-load {path}" for path in input.steady_load
        ],
    message:
        "Fit: what a token costs on `{wildcards.server}`"
    shell:
        "inference-energy stage fit --spec {params.spec:q} {params.energy} {params.steady_load}"
        " --output {output} 2> {log}"
