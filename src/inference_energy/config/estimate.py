"""Estimates beside what is measured. Changing these repeats no measurement."""

from pydantic import Field

from inference_energy.config.section import Section


class EstimateConfig(Section):
    """What the estimators rest on."""

    calibration: str | None = Field(
        None,
        min_length=1,
        description="calibration of the energy roofline: a .json that `inference-energy estimate fit` wrote, or "
        "h100-published or h100-windows; null: the one that is shipped for the GPU, if any",
    )
    gpu: str | None = Field(
        None,
        min_length=1,
        description="row of the table of data sheets (`inference-energy estimate gpus`); null: by the driver's name",
    )
