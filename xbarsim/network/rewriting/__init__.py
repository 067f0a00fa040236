"""Rewriting: compound operators become matrix products with constant weights and plain digital operators."""
