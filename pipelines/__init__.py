"""The jobs a person starts, and the Beam transforms they are made of."""
