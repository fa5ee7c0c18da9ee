"""The page that answers while a slider moves: one local server, its form, and its workers."""
