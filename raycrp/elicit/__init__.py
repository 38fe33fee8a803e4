"""Stage three: reaction types found by Algorithm 1."""
