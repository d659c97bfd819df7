"""Changes of training batches: parameters are sampled first, then applied."""
