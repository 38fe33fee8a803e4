"""Stage four: LLM-RT names the reaction type from the input alone (Eq 9)."""
