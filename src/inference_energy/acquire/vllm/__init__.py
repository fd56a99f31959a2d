"""The interpreter that runs vLLM: found on this machine, or an environment made from envs/."""
