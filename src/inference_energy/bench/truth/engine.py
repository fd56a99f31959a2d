"""Continuous batching as vLLM does it, one step at a time.

Each step gives one token to every request that decodes, then spends what is left of its token budget on prompts: first
those begun, then those waiting, in order of arrival, in chunks where a prompt is longer than the budget. A request that
needs a block when none is free makes the youngest running one give up its blocks and wait, to be computed again
(preemption by recomputation). Differences from vLLM: all blocks of a prompt are taken at its admission, and blocks of
generated tokens are not reused. Source: vLLM's documentation, "Optimization and tuning", and Kwon et al., SOSP 2023.

Everything that changes with each token is kept as a sum over the batch, so that a step costs the same for 1 request
and for 256: the simulation runs hundreds of times faster than real time.
"""

import heapq
from collections import deque

from inference_energy.bench.truth.ledger import POWER_CAP, THERMAL_SLOWDOWN, BenchRequest, Segments
from inference_energy.bench.truth.prefix_cache import BlockPool
from inference_energy.bench.truth.step import HOT_STRETCH_PER_K, StepPhysics, Thermal
from inference_energy.errors import InputError

IDLE_PIECE_S = 1.0


class BenchEngine:
    """One copy of the model on its GPUs.

    Attributes:
        segments: log of the engine.
        step: number of steps begun.
        waiting: requests that wait, oldest first.
        running: requests that prefill or decode, oldest first.
        now_ns: end of `segments`.
    """

    def __init__(self, physics: StepPhysics, start_ns: int = 0) -> None:
        self.physics = physics
        self.thermal = Thermal(physics.device)
        self.segments = Segments()
        self.blocks = BlockPool(physics.blocks, physics.engine.block_size)
        self.waiting: deque[BenchRequest] = deque()
        self.running: dict[int, BenchRequest] = {}
        self.step = 0
        self.preemptions = 0
        self.now_ns = start_ns
        self._settings = physics.engine
        self._prefilling: list[BenchRequest] = []
        self._chunks = 0
        self._joining: list[BenchRequest] = []
        self._finishing: list[tuple[int, int, BenchRequest]] = []
        self._decoding = 0
        self._context = 0
        self._phases = [0] * self._settings.block_size
        self._busy = False
        self._order = 0
        self._token_ns = start_ns

    @property
    def busy(self) -> bool:
        """Whether a step has begun and not been completed."""
        return self._busy

    @property
    def has_work(self) -> bool:
        """Whether a step can begin."""
        return bool(self.running or self.waiting)

    def add(self, request: BenchRequest) -> None:
        """Add a request to the waiting ones.

        Raises:
            InputError: it is longer than the longest context, so it would never be computed.
            ValueError: it has more hashes than full blocks of this engine's size.
        """
        length, most = request.prompt_tokens + request.output_tokens, self._settings.max_model_len
        if not request.output_tokens >= 1 or not request.prompt_tokens >= 1 or length > most:
            raise InputError(
                f"a request of {request.prompt_tokens} + {request.output_tokens} tokens does not fit into "
                f"max_model_len, {most} tokens"
            )
        if not self._settings.enable_prefix_caching:
            request.block_hashes = ()
        if len(request.block_hashes) > request.prompt_tokens // self._settings.block_size:
            raise ValueError(f"{len(request.block_hashes)} hashed blocks in a prompt of {request.prompt_tokens} tokens")
        self.waiting.append(request)

    def generated(self, request: BenchRequest) -> int:
        """Return the number of a request's tokens after the last completed step."""
        return request.generated + (self._steps_done(request) if request.joined_step >= 0 else 0)

    def abort(self, request: BenchRequest) -> None:
        """Remove a request; its cost stays in the log. One that has ended is left alone."""
        if self.running.pop(request.request_id, None) is not None:
            self._leave(request, self._steps_done(request) + self._busy)
        elif request in self.waiting:
            self.waiting.remove(request)

    def rest(self, until_ns: int, power_w: float | None = None) -> None:
        """Let time pass without a step.

        Args:
            until_ns: end of the rest.
            power_w: power of each GPU without leakage; None for a loaded model without requests.
        """
        base_w = self.physics.device.loaded_idle_w if power_w is None else power_w
        thermal, settings = self.thermal, self._settings
        while self.now_ns < until_ns:
            end_ns = min(until_ns, self.now_ns + round(IDLE_PIECE_S * 1e9))
            gpu_w = base_w + thermal.leakage_w
            thermal.advance((end_ns - self.now_ns) / 1e9, gpu_w)
            self.segments.rest(self.now_ns, end_ns, gpu_w, settings.host_idle_w, thermal.temperature_c)
            self.now_ns = end_ns

    def begin(self) -> int:
        """Begin a step now and return when it will end [ns].

        Call only if there is work, after `rest` has brought `now_ns` to the present.
        """
        settings, device = self._settings, self.physics.device
        self._busy = True
        step = self.step
        self.step = step + 1
        self._chunks, preempted = 0, self.preemptions
        if self._phases[step % settings.block_size]:
            self._grow(step)
        decoding = self._decoding
        prefill, pairs, prompts, cached = 0, 0.0, 0, 0
        if self._prefilling or self.waiting:
            # A request that has just lost its blocks does not come back in the same step.
            admitting = self.preemptions == preempted
            prefill, pairs, prompts, cached = self._prefill(step, settings.max_num_batched_tokens - decoding, admitting)
        sequences, samples = decoding + self._chunks, decoding + len(self._joining)
        duration_s, power_w, capped = self.physics.cost(
            decoding, self._context, prefill, pairs, sequences, samples, self.thermal.leakage_w
        )
        events = POWER_CAP if capped else 0
        if self.thermal.temperature_c > device.hot_c:
            # The cost of the step's bytes and FLOPs stays the same; the additional time costs the floor.
            extra_s = duration_s * HOT_STRETCH_PER_K * (self.thermal.temperature_c - device.hot_c)
            floor_j = (device.busy_w + self.thermal.leakage_w) * extra_s
            power_w = (power_w * duration_s + floor_j) / (duration_s + extra_s)
            duration_s += extra_s
            events |= THERMAL_SLOWDOWN
        end_ns = self.now_ns + max(1, round(duration_s * 1e9))
        self.thermal.advance(duration_s, power_w)
        log = self.segments
        log.start_ns.append(self.now_ns)
        log.end_ns.append(end_ns)
        log.decoding.append(decoding)
        log.context.append(self._context)
        log.prefill.append(prefill)
        log.sequences.append(sequences)
        log.samples.append(samples)
        log.prompts.append(prompts)
        log.cached.append(cached)
        log.preemptions.append(self.preemptions - preempted)
        log.running.append(len(self.running))
        log.waiting.append(len(self.waiting))
        log.blocks.append(self.blocks.used)
        log.events.append(events)
        log.pairs.append(pairs)
        log.gpu_w.append(power_w)
        log.host_w.append(settings.host_busy_w)
        log.temperature_c.append(self.thermal.temperature_c)
        self.now_ns = end_ns
        return end_ns

    def complete(self) -> list[BenchRequest]:
        """End the step and return the requests that it finished, or that got a first token from it."""
        self._busy = False
        step, now_ns = self.step - 1, self.now_ns
        self._token_ns = now_ns
        self._context += self._decoding
        changed: list[BenchRequest] = []
        finishing = self._finishing
        while finishing and finishing[0][0] <= step:
            finish, _, request = heapq.heappop(finishing)
            if request.finish_step != finish or request.request_id not in self.running:
                continue  # it was preempted or aborted since
            del self.running[request.request_id]
            self._leave(request, step - request.joined_step)
            changed.append(request)
        for request in self._joining:
            if request.request_id not in self.running:
                continue
            if not request.first_token_ns:
                request.first_token_ns = now_ns
            request.last_token_ns = now_ns
            self._join(request, step)
            changed.append(request)
        self._joining.clear()
        return changed

    def decoding(self) -> list[BenchRequest]:
        """Return the requests that get one token from the present step."""
        return [request for request in self.running.values() if request.joined_step >= 0]

    def _steps_done(self, request: BenchRequest) -> int:
        """Completed steps in which a decoding request got a token."""
        return self.step - 1 - self._busy - request.joined_step

    def _grow(self, step: int) -> None:
        """Give a block to each request whose next token begins one."""
        phase = step % self._settings.block_size
        while self._phases[phase] > self.blocks.free:
            self._preempt()
        self.blocks.take(self._phases[phase])

    def _preempt(self) -> None:
        _, request = self.running.popitem()
        self._leave(request, self._steps_done(request))
        request.preemptions += 1
        self.preemptions += 1
        request.target = request.prompt_tokens + request.generated
        request.computed = 0
        self.waiting.appendleft(request)

    def _prefill(self, step: int, budget: int, admitting: bool) -> tuple[int, float, int, int]:
        prefill, pairs, prompts, cached = 0, 0.0, 0, 0
        settings, running, waiting = self._settings, self.running, self.waiting
        todo = self._prefilling
        position = 0
        while budget > 0:
            if position == len(todo) and not (
                admitting and waiting and len(running) < settings.max_num_seqs and self._admit()
            ):
                break
            request = todo[position]
            tokens = min(request.target - request.computed, budget)
            chunk_pairs = tokens * request.computed + 0.5 * tokens * (tokens + 1)
            request.chunks.append((step, tokens, chunk_pairs))
            self._chunks += 1
            prefill += tokens
            pairs += chunk_pairs
            budget -= tokens
            request.computed += tokens
            if request.computed == request.target:
                request.prefills += 1
                self._joining.append(request)
                if not request.generated:
                    prompts += request.prompt_tokens
                    cached += request.cached_tokens
            position += 1
        if self._joining:
            self._prefilling = [request for request in todo if request.computed < request.target]
        return prefill, pairs, prompts, cached

    def _admit(self) -> bool:
        """Move the first waiting request to the running ones, if there is room for its prompt."""
        request, pool = self.waiting[0], self.blocks
        size = pool.block_size
        target = request.target or request.prompt_tokens
        hashes = request.block_hashes
        need = -(-target // size)
        cached = 0
        if hashes:
            # The last token is always computed, since its output is needed.
            cached = pool.find(hashes, (target - 1) // size)
            shared = pool.held_among(hashes)
            if need - shared > pool.free:
                return False
        elif need > pool.free:
            return False
        self.waiting.popleft()
        if hashes:
            pool.hold(hashes)
            if not request.preemptions:
                pool.queries += target
                pool.hits += cached * size
        pool.take(need - len(hashes))
        request.target = target
        request.computed = cached * size
        if not request.preemptions:
            request.cached_tokens = request.computed
        self.running[request.request_id] = request
        self._prefilling.append(request)
        return True

    def _join(self, request: BenchRequest, step: int) -> None:
        """Note that a prompt is computed and gave a token: the request decodes from the next step on, or has ended."""
        request.generated += 1
        if request.generated >= request.output_tokens:
            del self.running[request.request_id]
            self._free(request, request.target)
            return
        request.joined_step = step
        request.finish_step = step + request.output_tokens - request.generated
        self._order += 1
        heapq.heappush(self._finishing, (request.finish_step, self._order, request))
        self._decoding += 1
        self._context += request.target + 1
        self._phases[(step + 1 - request.target) % self._settings.block_size] += 1

    def _leave(self, request: BenchRequest, steps: int) -> None:
        """Take a request out of the sums over the batch and give back its blocks.

        Args:
            request: one that is no longer among the running.
            steps: steps that decoded for it, including one under way.
        """
        size = self._settings.block_size
        written = request.target
        if request.joined_step >= 0:
            done = self._steps_done(request)
            self._decoding -= 1
            self._context -= request.target + 1 + done
            self._phases[(request.joined_step + 1 - request.target) % size] -= 1
            request.generated += done
            request.decodes.append((request.joined_step + 1, request.target + 1, steps))
            request.last_token_ns = self._token_ns
            # Its entry in `_finishing` stays, and must not end it while it is computed again.
            request.joined_step = request.finish_step = -1
            written += steps
        elif request in self._prefilling:
            self._prefilling.remove(request)
        self._free(request, written)

    def _free(self, request: BenchRequest, written: int) -> None:
        """Give back the blocks of `written` tokens; blocks of a prompt that were not computed yet are not cached."""
        size, hashes = self._settings.block_size, request.block_hashes
        if hashes:
            filled = len(hashes) if request.computed == request.target else request.computed // size
            self.blocks.release(hashes, filled)
        self.blocks.give(-(-written // size) - len(hashes))
