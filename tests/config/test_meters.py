"""Sources that must be set up: the sampler takes the configuration's section as it is."""

from pathlib import Path

import pytest

from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.config.power import PowerConfig, SourceName


def test_the_sampler_takes_the_whole_section() -> None:
    section = PowerConfig.model_validate(
        {
            "redfish": {"endpoint": "https://bmc.example"},
            "ipmi": {},
            "smart_plug": {"kind": "shelly", "address": "http://plug.example"},
            "pdu": {"host": "pdu.example", "oids": ["1.3.6.1.4.1.318.1.1.26.4.3.1.5.1"]},
            "dcgm": {"url": "http://localhost:9400/metrics"},
        }
    )
    spec = SamplerSpec.parse(section.model_dump())
    assert spec.redfish is not None and spec.redfish.endpoint == "https://bmc.example"
    assert spec.pdu is not None and spec.pdu.port == 161


def test_every_source_can_be_named() -> None:
    from typing import get_args

    from inference_energy.acquire.power.choose import candidates

    assert set(get_args(SourceName)) == {source.name for source in candidates(SamplerSpec())}


def test_a_login_in_a_url_is_refused_and_not_repeated() -> None:
    from inference_energy.config.loader import read_yaml, validate
    from inference_energy.errors import InputError

    raw = read_yaml(Path(__file__).parents[2] / "config.yaml")
    raw["power"] = {"redfish": {"endpoint": "https://admin:hunter2@bmc.example"}}
    with pytest.raises(InputError, match=r"power\.redfish\.endpoint") as caught:
        validate(raw)
    assert "hunter2" not in str(caught.value) and "admin" not in str(caught.value)
