"""Results where people look: what runs came to, told to TensorBoard, W&B or MLflow."""
