"""The metric family, over all sessions of the experiment."""


rule metrics:
    input:
        steady_load=of_sessions(derived("{session}/steady_load.json")),
        energy=of_sessions(derived("{session}/energy.json")),
        carbon=of_sessions(derived("{session}/carbon.json")),
        receipts=of_sessions(derived("{session}/receipts.parquet")),
        requests=of_sessions(raw("sessions/{session}/requests.parquet")),
        prompts=of_sessions(raw("sessions/{session}/prompts.parquet")),
        model=of_sessions(raw("servers/{server}/model.json")),
        fit=unique(of_sessions(derived("fits/{server}.json"))),
    output:
        f"{EXPERIMENT}/metrics.json",
    log:
        f"results/logs/{CONFIG.experiment}/metrics.log",
    localrule: True
    params:
        spec=as_text(
            {
                "experiment": CONFIG.experiment,
                "metrics": SPECS.metrics(),
                **SPECS.analysis(FitConfig),
            }
        ),
        code=digest("inference_energy.metrics.stage"),
        parts=lambda wildcards, input: [
            *named("steady-load", input.steady_load),
            *named("energy", input.energy),
            *named("carbon", input.carbon),
            *named("receipts", input.receipts),
            *named("requests", input.requests),
            *named("prompts", input.prompts),
            *named("model", input.model),
            *named("fit", input.fit),
        ],
    message:
        "Metrics: what tokens, requests and answers cost"
    shell:
        "inference-energy stage metrics --spec {params.spec:q} {params.parts} --output {output} 2> {log}"
