"""Engines: what runs a model file on a device. ONNX Runtime, OpenVINO, TensorRT behind one port."""
