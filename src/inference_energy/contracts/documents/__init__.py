"""The JSON documents that stages exchange, one type a file; `document` reads and writes them.

    machine      environment.json, server_environment.json, model.json
    session      session.json, idle.json
    windows      launch.json, warmup.json, steady_load.json
    energy       energy.json, carbon.json, fits/<server>.json
    estimates    estimates.json
    experiment   experiment.json, metrics.json, summary.json
    by_hand      what `load-test --json` and `analyze --output` write

Each attribute is described in its class: docs/reference/files.md is generated from these descriptions.
"""
