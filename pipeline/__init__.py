"""Ray, MLflow and the command line."""
