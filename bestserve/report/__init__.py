"""Reports that a person wants to read: figures as data first, renderers second."""
