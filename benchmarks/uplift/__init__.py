"""Does an agent post-train better with mlintern than in a bare shell? See docs/uplift.md."""
