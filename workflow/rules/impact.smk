"""Carbon and water."""


rule carbon:
    input:
        energy=rules.integrate.output,
    output:
        derived("{session}/carbon.json"),
    log:
        logs("derived/{session}/carbon.log"),
    localrule: True
    params:
        spec=spec("carbon"),
        code=code("carbon"),
        inputs=inputs("carbon"),
    message:
        "Compute carbon and water of `{wildcards.session}`"
    shell:
        "inference-energy stage carbon --spec {params.spec:q} {params.inputs:q} --output {output} --log {log}"
