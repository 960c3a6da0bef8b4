"""What looks at the model; nothing outside imports it."""
