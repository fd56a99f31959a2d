"""Settings of the serving engine, named as vLLM names its flags."""

from pydantic import Field, model_validator

from inference_energy.bench.parts.section import Part


class EngineSettings(Part):
    """How requests are batched, and what the host costs each step.

    `step_host_s` and `sequence_host_s` are the time between the kernels of a step, and that for each sequence in it,
    in which the GPU waits: launches, sampling, scheduling. The defaults are vLLM 0.25's, fitted by
    `validation.calibration`. `host_idle_w` and `host_busy_w` are the CPU packages' power at rest and while a step
    runs, `dram_w` that of the memory beside them; these are assumed.
    """

    max_num_seqs: int = Field(256, ge=1)
    max_num_batched_tokens: int = Field(8192, ge=1)
    block_size: int = Field(16, ge=1)
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    max_model_len: int = Field(8192, ge=1)
    enable_prefix_caching: bool = True
    num_gpu_blocks: int | None = Field(None, ge=1, description="null: what fits beside the weights")
    step_host_s: float = Field(0.96e-3, ge=0)
    sequence_host_s: float = Field(0.2e-6, ge=0)
    host_idle_w: float = Field(95.0, ge=0)
    host_busy_w: float = Field(150.0, ge=0)
    dram_w: float = Field(18.0, ge=0)

    @model_validator(mode="after")
    def _decoding_fits_the_budget(self) -> "EngineSettings":
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must not be below max_num_seqs "
                f"({self.max_num_seqs}): each running request needs a token a step"
            )
        return self


VLLM_0_11 = EngineSettings(step_host_s=1.77e-3, sequence_host_s=78.6e-6)
"""vLLM 0.11, which scheduled between steps instead of during them; fitted as the defaults are."""
