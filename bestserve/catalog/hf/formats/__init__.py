"""Number formats of a checkpoint: what its quantisation section says of which module."""
