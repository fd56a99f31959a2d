"""The pacer: never early, all that is due at once, whatever timer it has."""

import asyncio
import time

import pytest
import uvloop
from tests.load.virtual_time import HastyLoop, run_virtually

from inference_energy.acquire.load import pacer as pacer_module
from inference_energy.acquire.load.pacer import Pacer

MS = 1_000_000


def run(main: object, loop: object = uvloop.new_event_loop) -> object:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_callbacks_come_in_order_and_never_early(kernel: bool, loop: object) -> None:
    async def main() -> list[tuple[int, int]]:
        pacer = Pacer(kernel=kernel)
        assert pacer.kernel is kernel
        begun_ns = time.monotonic_ns()
        called: list[tuple[int, int]] = []
        for offset_ms in (9, 3, 3, 21, 0, -5):
            due_ns = begun_ns + offset_ms * MS
            pacer.call_at(due_ns, lambda due_ns: called.append((due_ns, time.monotonic_ns())), due_ns)
        await pacer.sleep_until(begun_ns + 30 * MS)
        assert time.monotonic_ns() >= begun_ns + 30 * MS
        pacer.close()
        return called

    called = run(main(), loop)
    assert [due for due, _ in called] == sorted(due for due, _ in called)
    assert len(called) == 6
    assert all(at >= due for due, at in called)


def test_a_time_set_later_that_is_due_earlier_is_not_missed() -> None:
    async def main() -> list[str]:
        pacer = Pacer()
        called: list[str] = []
        now_ns = time.monotonic_ns()
        pacer.call_at(now_ns + 3600 * 1000 * MS, called.append, "late")
        pacer.call_at(now_ns + 5 * MS, called.append, "early")
        await pacer.sleep_until(now_ns + 10 * MS)
        assert pacer.next_ns == now_ns + 3600 * 1000 * MS
        pacer.close()
        return called

    assert run(main()) == ["early"]


def test_a_delayed_loop_releases_all_that_became_due_and_keeps_the_times_that_follow() -> None:
    async def main() -> list[int]:
        pacer = Pacer(kernel=False)
        begun_ns = time.monotonic_ns()
        called: list[int] = []
        for number in range(10):
            pacer.call_at(begun_ns + number * 10 * MS, lambda: called.append(time.monotonic_ns() - begun_ns))
        asyncio.get_running_loop().now_ns += 55 * MS  # type: ignore[attr-defined]  # nothing can be called meanwhile
        await pacer.sleep_until(begun_ns + 100 * MS)
        pacer.close()
        return called

    # What fell due in the pause came right after it, and the pause did not shift what came later.
    assert run_virtually(main()) == [55 * MS] * 6 + [60 * MS, 70 * MS, 80 * MS, 90 * MS]


def test_a_timer_that_comes_too_early_calls_nothing_before_its_time() -> None:
    async def main() -> list[int]:
        pacer = Pacer(kernel=False)
        begun_ns = time.monotonic_ns()
        called: list[int] = []
        for number in range(1, 4):
            pacer.call_at(begun_ns + number * 10 * MS, lambda: called.append(time.monotonic_ns() - begun_ns))
        await pacer.sleep_until(begun_ns + 40 * MS)
        pacer.close()
        return called

    called = run_virtually(main(), HastyLoop)
    assert [round(at_ns / MS, 2) for at_ns in called] == [10, 20, 30]
    assert all(at_ns >= number * 10 * MS for number, at_ns in enumerate(called, 1))


def test_the_kernels_timer_too_makes_nothing_up() -> None:
    async def main() -> list[tuple[int, int]]:
        pacer = Pacer()
        begun_ns = time.monotonic_ns()
        called: list[tuple[int, int]] = []
        for number in range(10):
            due_ns = begun_ns + number * 10 * MS
            pacer.call_at(due_ns, lambda due_ns: called.append((due_ns, time.monotonic_ns())), due_ns)
        time.sleep(0.055)
        await pacer.sleep_until(begun_ns + 100 * MS)
        pacer.close()
        return called

    called = run(main())
    assert len(called) == 10
    assert all(at >= due for due, at in called)


def test_a_failing_callback_does_not_stop_the_others() -> None:
    async def main() -> list[int]:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        pacer = Pacer()
        now_ns = time.monotonic_ns()
        called: list[int] = []
        pacer.call_at(now_ns + 2 * MS, lambda: 1 / 0)
        pacer.call_at(now_ns + 6 * MS, called.append, 1)
        await asyncio.wait_for(pacer.sleep_until(now_ns + 10 * MS), 5)
        pacer.close()
        return called

    assert run(main()) == [1]


def test_without_a_timer_of_the_kernel_the_loops_own_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise OSError("no timerfd")

    monkeypatch.setattr(pacer_module, "KernelTimer", none)

    async def main() -> bool:
        pacer = Pacer()
        await asyncio.wait_for(pacer.sleep_until(time.monotonic_ns() + 3 * MS), 5)
        return pacer.kernel

    assert run(main()) is False
