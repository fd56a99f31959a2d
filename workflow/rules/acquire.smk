"""Rules that touch the machine. They make files of this machine only: other machines' raw results are plain inputs."""


rule environment:
    output:
        raw("environment.json"),
    log:
        logs("environment.log"),
    wildcard_constraints:
        machine=re.escape(MACHINE),
    params:
        code=code("environment"),
    message:
        "Capture the environment of {wildcards.machine}"
    shell:
        "inference-energy stage environment --output {output} --log {log}"


rule server_environment:
    input:
        locks=lambda wildcards: sorted(
            glob(
                f"envs/{PARAMS.server_environment(wildcards.server).environment}/*.lock"
            )
        ),
    output:
        raw("servers/{server}/server_environment.json"),
    log:
        logs("servers/{server}/server_environment.log"),
    wildcard_constraints:
        machine=re.escape(MACHINE),
    params:
        spec=spec("server_environment"),
        code=code("server_environment"),
    message:
        "Find or make the vLLM of `{wildcards.server}`"
    shell:
        "inference-energy stage server-environment --spec {params.spec:q} --output {output} --log {log}"


rule model:
    input:
        server_environment=rules.server_environment.output,
    output:
        raw("servers/{server}/model.json"),
    log:
        logs("servers/{server}/model.log"),
    wildcard_constraints:
        machine=re.escape(MACHINE),
    params:
        spec=spec("model"),
        code=code("model"),
        inputs=inputs("model"),
    message:
        "Prepare the model of `{wildcards.server}`"
    shell:
        "inference-energy stage model --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"


rule prompts:
    input:
        model=of_server(raw("servers/{server}/model.json")),
        files=lambda wildcards: PARAMS.plan_files(wildcards.session),
    output:
        raw("sessions/{session}/prompts.parquet"),
    log:
        logs("sessions/{session}/prompts.log"),
    wildcard_constraints:
        machine=re.escape(MACHINE),
    params:
        spec=spec("prompts"),
        code=code("prompts"),
        inputs=inputs("prompts"),
    message:
        "Make the prompts of `{wildcards.session}`"
    shell:
        "inference-energy stage prompts --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"


rule schedule:
    input:
        prompts=rules.prompts.output,
        files=lambda wildcards: PARAMS.plan_files(wildcards.session),
    output:
        raw("sessions/{session}/schedule.parquet"),
    log:
        logs("sessions/{session}/schedule.log"),
    wildcard_constraints:
        machine=re.escape(MACHINE),
    params:
        spec=spec("schedule"),
        code=code("schedule"),
        inputs=inputs("schedule"),
    message:
        "Draw the schedule of `{wildcards.session}`"
    shell:
        "inference-energy stage schedule --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"


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
        spec=spec("idle_baseline"),
        code=code("idle_baseline"),
        inputs=inputs("idle_baseline"),
        logs=logs("idle/{server}"),
    message:
        "Log the power of the idle machine, before `{wildcards.server}` starts"
    shell:
        "inference-energy stage idle-baseline --spec {params.spec:q} {params.inputs:q}"
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
        spec=spec("session"),
        code=code("session"),
        inputs=inputs("session"),
        output=lambda wildcards, output: folder_of(output.power),
        logs=logs("sessions/{session}"),
    message:
        "Launch the server of `{wildcards.session}`, load it, log its power, and stop it"
    shell:
        "inference-energy stage environment --output {output.environment} && "
        "inference-energy stage session --spec {params.spec:q} {params.inputs:q}"
        " --output {params.output} --logs {params.logs} --log {log}"
