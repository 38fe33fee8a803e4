"""Stage six: LLM-CRP fine-tuned by Ray Train and DeepSpeed (Eq 13)."""
