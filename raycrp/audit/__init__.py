"""Where a gain comes from: sources of the reaction type, and what the labels give away."""
