"""Search over strategies: enumerate, rank, allocate, and the fronts between objectives."""
