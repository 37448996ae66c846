"""Text and features in, vectors out: the turn encoder, the dialogue Transformer, token-budget batches."""
