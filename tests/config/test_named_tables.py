"""Names that are looked up before anything is measured: GPUs, calibrations, figures."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_energy.cli.experiment import check_names
from inference_energy.config.loader import validate
from inference_energy.errors import InputError

RAW = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())


def look_up(**sections: Any) -> None:
    check_names(validate({**RAW, **sections}))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"estimate": {"gpu": "H100X"}}, r"^estimate\.gpu: H100X is not in the table .* H100-SXM"),
        ({"estimate": {"calibration": "h100"}}, r"^estimate\.calibration: h100: .* h100-published"),
        ({"estimate": {"calibration": "missing.json"}}, r"missing\.json"),
        ({"metrics": {"pareto": [["tpot_p50_s", "nonsense"]]}}, r"^metrics\.pareto: nonsense: .* ttft_p90_s"),
    ],
)
def test_what_is_not_there_is_said_with_its_key(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        look_up(**sections)


def test_what_is_there_passes() -> None:
    look_up(
        estimate={"gpu": "h100-sxm", "calibration": "h100-published"},
        metrics={"pareto": [["tpot_p50_s", "output_tokens_per_s"]]},
    )


def test_a_file_that_is_no_calibration(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match=r"^estimate\.calibration: .*other\.json: not a calibration"):
        look_up(estimate={"calibration": str(tmp_path / "other.json")})
