"""NPZ: networks from plain arrays and a manifest of their layers, as ONNX models."""
