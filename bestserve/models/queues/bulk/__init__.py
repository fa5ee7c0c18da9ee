"""The queue before a chunked or whole-prompt lane: a bulk chain with a token budget."""
