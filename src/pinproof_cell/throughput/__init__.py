"""The throughput probe: interleaved pairs against the Triton baseline."""
