"""The law of TPOT: noise of shared steps, mixtures, clumps of arrivals."""
