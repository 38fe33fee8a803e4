"""Stage two: input and output vectors of the training rows."""
