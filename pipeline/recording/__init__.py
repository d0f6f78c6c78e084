"""What runs look like in MLflow: names, descriptions, tags and saved views, as plain values."""
