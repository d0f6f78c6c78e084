"""What a person sees: the terminal, help and completion; names, descriptions and views in MLflow."""
