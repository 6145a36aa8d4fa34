"""What a recipe takes: memory and time of each stage, before it runs."""
