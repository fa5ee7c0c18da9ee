"""Which answer, and how sure: formula or simulation, doubts, intervals."""
