"""The chain of stages: what each reads, runs and writes, for the workflow's rules, the command line and `verify`."""
