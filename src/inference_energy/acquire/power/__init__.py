"""Power sources and the sampler that logs them."""
