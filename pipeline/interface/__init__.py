"""User interface: terminal, help and completion; names, descriptions and views in MLflow."""
