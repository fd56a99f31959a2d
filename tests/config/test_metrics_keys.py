"""The section `metrics`: what is refused, and the profile of a day."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_energy.config.loader import validate
from inference_energy.contracts.traffic import Traffic, read_traffic
from inference_energy.errors import InputError

RAW = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())


def checked(metrics: dict[str, Any], **more: Any) -> Any:
    return validate({**RAW, **more, "metrics": metrics}).metrics


def test_embodied_emissions_need_their_source() -> None:
    with pytest.raises(InputError, match=r"metrics\.embodied\.source: this key is required"):
        checked({"embodied": {"total_kg": 1500, "lifetime_years": 4}})
    assert checked({"embodied": {"total_kg": 1500, "lifetime_years": 4, "source": "a report"}}).embodied.share == 1


def test_an_unknown_grader_and_a_floor_in_percent() -> None:
    with pytest.raises(InputError, match=r"metrics\.quality\.grader"):
        checked({"quality": {"grader": "judge"}})
    with pytest.raises(InputError, match=r"metrics\.quality\.floor"):
        checked({"quality": {"floor": 80}})


def test_a_missing_profile_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.traffic\.profile: .*none\.csv cannot be read"):
        checked({"traffic": {"profile": str(tmp_path / "none.csv")}})


def test_questions_stand_alone() -> None:
    talk = {"api": "chat", "prompts": {"source": "questions"}, "conversations": {}}
    with pytest.raises(InputError, match="each question stands alone"):
        checked({}, workloads={**RAW["workloads"], "chat": talk})


def day(**changed: Any) -> str:
    rows = {hour: str(100 * hour) for hour in range(24)} | {int(k[1:]): v for k, v in changed.items()}
    return "hour,requests\n" + "".join(f"{hour},{amount}\n" for hour, amount in rows.items() if amount is not None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a head line"),
        ("hour,users\n0,1\n", "one of requests, output_tokens; found: hour, users"),
        ("hour,requests,output_tokens\n0,1,2\n", "needs a head line"),
        (day(h5=None, h6=None), "lacks hour 5, 6"),
        (day(h24="1"), ":26: hour: each of 0 to 23 once"),
        (day() + "3,5\n", ":26: hour: each of 0 to 23 once"),
        (day(h7="-1"), ":9: requests: a number from 0 up"),
        (day(h7="many"), "got 'many'"),
        (day(h7="nan"), ":9: requests"),
        (day(h7=""), ":9: requests"),
    ],
)
def test_a_wrong_profile_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "day.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_traffic(path, "metrics.traffic.profile")


def test_a_profile_in_any_order(tmp_path: Path) -> None:
    head, *rows = day().splitlines()
    path = tmp_path / "day.csv"
    path.write_text("\n".join([head, *reversed(rows)]) + "\n")
    found = read_traffic(path, "--traffic")
    assert (found.unit, found.hourly[23], sum(found.hourly)) == ("requests", 2300, 100 * 276)
    assert Traffic.of(found.as_dict()) == found
