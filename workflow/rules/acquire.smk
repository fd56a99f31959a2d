"""Rules that touch the machine. They make files of this machine only: other machines' raw results are plain inputs."""

ENVS = "envs"


rule environment:
    output:
        raw("environment.json"),
    log:
        logs("environment.log"),
    wildcard_constraints:
        machine=re.escape(MACHINE),
    params:
        code=digest("inference_energy.acquire.machine_environment"),
    message:
        "Environment: capture {wildcards.machine}"
    shell:
        "inference-energy stage environment --output {output} 2> {log}"


rule server_environment:
    input:
        locks=lambda wildcards: sorted(
            glob(
                f"{ENVS}/{SPECS.server_environment(wildcards.server)['environment']}/*.lock"
            )
        ),
    output:
        raw("servers/{server}/server_environment.json"),
    log:
        logs("servers/{server}/server_environment.log"),
    wildcard_constraints:
        machine=re.escape(MACHINE),
    params:
        spec=lambda wildcards: as_text(SPECS.server_environment(wildcards.server)),
        code=digest("inference_energy.acquire.vllm_environment"),
    message:
        "Server environment: find or make the vLLM of `{wildcards.server}`"
    shell:
        "inference-energy stage server-environment --spec {params.spec:q} --envs envs --output {output} --log {log}"


rule model:
    input:
        rules.server_environment.output,
    output:
        raw("servers/{server}/model.json"),
    log:
        logs("servers/{server}/model.log"),
    wildcard_constraints:
        machine=re.escape(MACHINE),
    params:
        spec=lambda wildcards: as_text(SPECS.model(wildcards.server)),
        code=digest("inference_energy.acquire.model_files"),
    message:
        "Model: make that of `{wildcards.server}` ready"
    shell:
        "inference-energy stage model --spec {params.spec:q} --server-environment {input} --output {output} --log {log}"


rule prompts:
    input:
        model=of_server(raw("servers/{server}/model.json")),
        files=lambda wildcards: SPECS.plan_files(wildcards.session),
    output:
        raw("sessions/{session}/prompts.parquet"),
    log:
        logs("sessions/{session}/prompts.log"),
    wildcard_constraints:
        machine=re.escape(MACHINE),
    params:
        spec=lambda wildcards: as_text(SPECS.plan(wildcards.session)),
        code=digest("inference_energy.plan.schedule", "inference_energy.plan.tables"),
    message:
        "Prompts: make those of `{wildcards.session}`"
    shell:
        "inference-energy stage prompts --spec {params.spec:q} --model {input.model} --output {output} 2> {log}"


rule schedule:
    input:
        prompts=rules.prompts.output,
        files=lambda wildcards: SPECS.plan_files(wildcards.session),
    output:
        raw("sessions/{session}/schedule.parquet"),
    log:
        logs("sessions/{session}/schedule.log"),
    wildcard_constraints:
        machine=re.escape(MACHINE),
    params:
        spec=lambda wildcards: as_text(SPECS.plan(wildcards.session)),
        code=digest("inference_energy.plan.schedule", "inference_energy.plan.tables"),
    message:
        "Schedule: draw that of `{wildcards.session}`"
    shell:
        "inference-energy stage schedule --spec {params.spec:q} --prompts {input.prompts} --output {output} 2> {log}"


rule idle_baseline:
    input:
        server_environment=rules.server_environment.output,
        model=rules.model.output,
    output:
        power=raw("idle/{server}/power.parquet"),
        facts=raw("idle/{server}/idle.json"),
    log:
        logs("idle/{server}/idle.log"),
    benchmark:
        logs("idle/{server}/benchmark.tsv")
    wildcard_constraints:
        machine=re.escape(MACHINE),
    threads: ALL_CORES
    resources:
        gpu=1,
    params:
        spec=lambda wildcards: as_text(SPECS.idle(wildcards.server)),
        code=digest("inference_energy.acquire.session.idle"),
        logs=lambda wildcards, output: folder_of(
            logs("idle/{server}/x").format(**wildcards)
        ),
    message:
        "Idle baseline: log the idle machine's power before `{wildcards.server}` starts"
    shell:
        "inference-energy stage idle-baseline --spec {params.spec:q}"
        " --server-environment {input.server_environment} --model {input.model}"
        " --power {output.power} --facts {output.facts} --logs {params.logs} --log {log}"


rule session:
    input:
        idle=of_server(raw("idle/{server}/power.parquet")),
        server_environment=of_server(raw("servers/{server}/server_environment.json")),
        model=of_server(raw("servers/{server}/model.json")),
        prompts=rules.prompts.output,
        schedule=rules.schedule.output,
    output:
        power=raw("sessions/{session}/power.parquet"),
        requests=raw("sessions/{session}/requests.parquet"),
        server_metrics=raw("sessions/{session}/server_metrics.parquet"),
        phases=raw("sessions/{session}/phases.parquet"),
        facts=raw("sessions/{session}/session.json"),
        environment=raw("sessions/{session}/environment.json"),
    log:
        logs("sessions/{session}/session.log"),
    benchmark:
        logs("sessions/{session}/benchmark.tsv")
    wildcard_constraints:
        machine=re.escape(MACHINE),
    threads: ALL_CORES
    resources:
        gpu=1,
    params:
        spec=lambda wildcards: as_text(SPECS.session(wildcards.session)),
        code=digest("inference_energy.acquire.session.run"),
        output=lambda wildcards, output: folder_of(output.power),
        logs=logs("sessions/{session}"),
    message:
        "Session `{wildcards.session}`: launch the server, load it, log its power, stop it"
    shell:
        "inference-energy stage environment --output {output.environment} && "
        "inference-energy stage session --spec {params.spec:q}"
        " --server-environment {input.server_environment} --model {input.model}"
        " --prompts {input.prompts} --schedule {input.schedule} --output {params.output} --logs {params.logs} --log {log}"
