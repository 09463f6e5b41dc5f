"""ONNX Runtime as an engine. Alone in importing onnxruntime."""
