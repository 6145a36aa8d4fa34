"""What a model is worth: figures with n and an interval, on held-out prompts."""
