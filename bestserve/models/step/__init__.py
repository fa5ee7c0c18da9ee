"""What one engine step takes, from operators to five coefficients; what fits in memory."""
