"""What a person looks at: the terminal, TensorBoard, pictures, plots and pages."""
