"""Carbon and water."""


rule carbon:
    input:
        rules.integrate.output,
    output:
        derived("{session}/carbon.json"),
    log:
        logs("derived/{session}/carbon.log"),
    localrule: True
    params:
        spec=as_text(SPECS.impact()),
        code=digest("inference_energy.impact.footprint"),
    message:
        "Carbon: that of `{wildcards.session}`"
    shell:
        "inference-energy stage carbon --spec {params.spec:q} --energy {input} --output {output} 2> {log}"
