"""Stages: tokenizer, guardrails, pre- and post-processing. Each module holds one, and imports only what it needs."""
