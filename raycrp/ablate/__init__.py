"""The paper's ablations: models that differ in their prompts alone, side by side."""
