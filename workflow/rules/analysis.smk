"""From windows to energy, receipts and the cost of a token."""


rule integrate:
    input:
        session=SESSION + "/session.json",
        phases=SESSION + "/phases.parquet",
        power=SESSION + "/power.parquet",
        idle=of_server(RAW + "/idle/{server}/idle.json"),
        idle_power=of_server(RAW + "/idle/{server}/power.parquet"),
        steady_load=rules.steady_load.output,
    output:
        DERIVED + "/energy.json",
    log:
        LOGS + "/derived/{session}/integrate.log",
    localrule: True
    params:
        spec=as_text(
            SPECS.analysis("power_reading", "counter_tolerance", "max_gap_periods")
        ),
        code=digest("inference_energy.analysis.integrate"),
    message:
        "Integrate: energy of the windows of `{wildcards.session}`"
    shell:
        "inference-energy stage integrate --spec {params.spec:q} --session {input.session} --phases {input.phases}"
        " --power {input.power} --idle {input.idle} --idle-power {input.idle_power}"
        " --steady-load {input.steady_load} --output {output} 2> {log}"


rule attribute:
    input:
        requests=SESSION + "/requests.parquet",
        energy=rules.integrate.output,
    output:
        DERIVED + "/receipts.parquet",
    log:
        LOGS + "/derived/{session}/attribute.log",
    localrule: True
    params:
        spec=as_text(SPECS.analysis("attribution")),
        code=digest("inference_energy.analysis.attribute"),
    message:
        "Attribute: energy of each request of `{wildcards.session}`"
    shell:
        "inference-energy stage attribute --spec {params.spec:q} --requests {input.requests} --energy {input.energy}"
        " --output {output} 2> {log}"


def sessions_of_server(pattern):
    """An input function: the pattern for each session of the experiment on one server."""
    return lambda wildcards: [
        pattern.format(machine=wildcards.machine, session=session)
        for session in CONFIG.run
        if CONFIG.sessions[session].server == wildcards.server
    ]


rule fit:
    input:
        energy=sessions_of_server(DERIVED + "/energy.json"),
        steady_load=sessions_of_server(DERIVED + "/steady_load.json"),
    output:
        FITS + "/{server}.json",
    log:
        LOGS + "/derived/fit_{server}.log",
    localrule: True
    params:
        code=digest("inference_energy.analysis.fit.stage"),
        energy=lambda wildcards, input: [f"--energy {path}" for path in input.energy],
        steady_load=lambda wildcards, input: [
            f"--steady-load {path}" for path in input.steady_load
        ],
    message:
        "Fit: what a token costs on `{wildcards.server}`"
    shell:
        "inference-energy stage fit {params.energy} {params.steady_load} --output {output} 2> {log}"
