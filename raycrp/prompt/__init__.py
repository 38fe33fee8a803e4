"""Stage five: instructions chosen and fused with the reaction type (Eq 10-12)."""
