"""Stage seven: predictions and their scores."""
