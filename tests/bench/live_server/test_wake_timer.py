"""The timer calls back once, not before its time, and as set last; with timer files and without."""

import asyncio
import ctypes
import time

import pytest

from inference_energy.bench.live.engine_loop import WakeTimer

MS = 1_000_000


@pytest.fixture(params=["timer file", "asyncio's timers"])
def _timers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "timer file":

        def none(*_: object, **__: object) -> None:
            raise OSError

        monkeypatch.setattr(ctypes, "CDLL", none)


def calls_ms(settings_ms: list[float], close_first: bool = False) -> list[float]:
    """Return when a timer set to these times from now, one after the other, called back within 60 ms."""

    async def run() -> list[float]:
        times: list[float] = []
        began_ns = time.monotonic_ns()
        timer = WakeTimer(asyncio.get_running_loop(), lambda: times.append((time.monotonic_ns() - began_ns) / MS))
        for setting_ms in settings_ms:
            timer.set(began_ns + round(setting_ms * MS))
        if close_first:
            timer.close()
        await asyncio.sleep(0.06)
        timer.close()
        return times

    return asyncio.run(run())


@pytest.mark.usefixtures("_timers")
@pytest.mark.parametrize(("settings_ms", "not_before_ms"), [([20], 20), ([40, 10], 10), ([10, 30], 30), ([-5], 0)])
def test_it_calls_back_once(settings_ms: list[float], not_before_ms: float) -> None:
    (time_ms,) = calls_ms(settings_ms)
    assert time_ms >= not_before_ms


@pytest.mark.usefixtures("_timers")
def test_a_closed_timer_is_silent() -> None:
    assert calls_ms([10], close_first=True) == []
