"""What versions are built from: Hugging Face checkpoints and Python stage code. Each is found and checked here."""
