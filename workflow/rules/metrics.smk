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
        spec=spec("metrics"),
        code=code("metrics"),
        inputs=inputs("metrics"),
    message:
        "Compute what tokens, requests and answers cost"
    shell:
        "inference-energy stage metrics --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"
