"""Vectors in, labels out: one file a task, and the model that joins them."""
