"""The alarm rings once, not before its time, and as set last; with timer files and without."""

import asyncio
import ctypes
import time

import pytest

from inference_energy.bench.live.timer import WakeTimer

MS = 1_000_000


@pytest.fixture(params=["timer file", "asyncio's timers"])
def _timers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "timer file":

        def none(*_: object, **__: object) -> None:
            raise OSError

        monkeypatch.setattr(ctypes, "CDLL", none)


def rung(settings_ms: list[float], close_first: bool = False) -> list[float]:
    """When an alarm set to these times from now, one after the other, rang within 60 ms."""

    async def run() -> list[float]:
        times: list[float] = []
        began_ns = time.monotonic_ns()
        alarm = WakeTimer(asyncio.get_running_loop(), lambda: times.append((time.monotonic_ns() - began_ns) / MS))
        for setting_ms in settings_ms:
            alarm.set(began_ns + round(setting_ms * MS))
        if close_first:
            alarm.close()
        await asyncio.sleep(0.06)
        alarm.close()
        return times

    return asyncio.run(run())


@pytest.mark.usefixtures("_timers")
@pytest.mark.parametrize(("settings_ms", "not_before_ms"), [([20], 20), ([40, 10], 10), ([10, 30], 30), ([-5], 0)])
def test_it_rings_once(settings_ms: list[float], not_before_ms: float) -> None:
    (time_ms,) = rung(settings_ms)
    assert time_ms >= not_before_ms


@pytest.mark.usefixtures("_timers")
def test_once_closed_it_is_silent() -> None:
    assert rung([10], close_first=True) == []
