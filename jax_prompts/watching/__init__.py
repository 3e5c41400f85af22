"""A run watched while it trains: TensorBoard, Weights & Biases, JAX's profiler."""
