"""Text out of a model: caches, cached forward passes, generation."""
