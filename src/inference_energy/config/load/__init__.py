"""The load of a session, one file a part: lengths, times, prompts, workload, arrivals, phases, client.

What reaches the load client, as `stages.params.StageParams.session` writes it:

- `client`, the whole section `Client`: `request_timeout_s`, `drain_s`, `workers`, `transport` (auto, plain, aiohttp),
  `api_key_env`, `ca_file`, `verify`, `connections`.
- each cell's `workload`, of which the client needs `api`, `stream`, `ignore_eos`, `prefix_reuse`, `history`,
  `keep_answers`, `chunk_times`, `parameters`. All else of it is in the schedule: lengths, salts, users, think times.
"""
