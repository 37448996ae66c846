"""What a log is, what a label is, and what each must satisfy. Imports none of the other three packages."""
